"""Exercises with several processes: the same probe in a sandboxed worker and in a learner's own process."""

import itertools
import os
import textwrap

import pytest
import torch
import torch.distributed as dist
from graders.probes.ranks import on_groups

from moe_course.grading.exercises.expect import explained
from moe_course.grading.judge.subject import LiveSubject, WorkerSubject
from moe_course.grading.worker import ranks
from moe_course.grading.worker.sandbox import Limits

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")

CELL = textwrap.dedent("""
    import os
    import torch
    import torch.distributed as dist

    def total(x, group):
        print("a word of its own")
        return x + 0 * exchanged(x, group)

    def exchanged(x, group):
        y = x.detach().clone()
        dist.all_reduce(y, group=group)
        return y

    def first_returns(x, group):
        if dist.get_rank(group) == 0:
            return x
        dist.barrier(group=group)
        return x

    def unwritten(x, group):
        raise NotImplementedError

    def dies(x, group):
        if dist.get_rank(group) == 1:
            os._exit(3)
        dist.barrier(group=group)
""")
ARGS = [
    None,
    [torch.tensor([1.0, 2.0]), {"ranks": [1, 2]}],
    [torch.tensor([5.0, 7.0]), {"ranks": [1, 2]}],
]


@pytest.fixture(scope="module", params=["live", "worker", "sandboxed"])
def subject(request):
    if request.param == "live":
        namespace = {}
        exec(CELL, namespace)
        yield LiveSubject(namespace)
        return
    if request.param == "sandboxed":
        request.getfixturevalue("needs_sandbox")
    with WorkerSubject([CELL], Limits() if request.param == "sandboxed" else None) as worker:
        yield worker


def test_results_and_gradients_of_a_subgroup(subject):
    cotangents = [None, torch.tensor([1.0, -1.0]), torch.tensor([3.0, 4.0])]
    looks_on, *ran = subject.run(on_groups, "total", ARGS, cotangents, wrt=(0,)).value
    assert looks_on is None
    for out, args, cotangent in zip(ran, ARGS[1:], cotangents[1:], strict=True):
        result, gradients, needs = out.value
        assert needs
        torch.testing.assert_close(result, args[0])
        torch.testing.assert_close(gradients[0], cotangent)
        assert torch.equal(out.inputs[0], args[0])
    assert not dist.is_initialized()


def test_what_was_exchanged(subject):
    _, *ran = subject.run(on_groups, "exchanged", ARGS).value
    assert [out.value[0].tolist() for out in ran] == [[6.0, 9.0]] * 2
    _, one, other = subject.run(on_groups, "exchanged", ARGS, [torch.ones(2)] * 3, wrt=(0,)).value
    assert one.value[1:] == other.value[1:] == ([None], False)  # no gradient, and no deadlock because of it


def test_a_deadlock_is_named_with_who_waits_where(subject):
    out = subject.run(on_groups, "first_returns", ARGS)
    assert out.error.type_name == "Deadlock"
    assert "rank 2 waits in barrier, called by first_returns at" in out.error.message
    if not isinstance(subject, LiveSubject):  # `exec` leaves no lines to quote
        assert out.error.line == "dist.barrier(group=group)"


def test_a_stub_is_a_stub_and_a_dead_process_is_told(subject):
    if not isinstance(subject, LiveSubject):
        assert "unwritten is not written yet" in explained(subject.run(on_groups, "unwritten", ARGS).error)
    assert "rank 2 ended with exit code 3" in subject.run(on_groups, "dies", ARGS).error.message


class Slow:
    """A rank whose replies come after so many looks, all of which find it asleep."""

    def __init__(self, looks):
        self.looks, self.reply, self.rank = looks, None, 0
        self._read, self._write = os.pipe()

    def fileno(self):
        return self._read

    def hear(self):
        self.reply = {"value": 7, "printed": ""}
        return True

    def asleep(self):
        self.looks -= 1
        if self.looks == 0:
            os.write(self._write, b"!")
        return True

    def place(self):
        return "", "", ""


def test_two_late_looks_are_no_deadlock(monkeypatch):
    """On a busy machine a second may pass between two looks, in which the ranks have worked."""
    clock = itertools.count()
    monkeypatch.setattr(ranks.time, "monotonic", lambda: next(clock))
    assert ranks._results([Slow(looks=ranks.LOOKS - 1)], deadline=100) == [7]
    with pytest.raises(ranks.RanksFailed, match="Deadlock"):
        ranks._results([Slow(looks=ranks.LOOKS + 1)], deadline=100)
