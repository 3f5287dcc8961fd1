"""The self-check in a learner's kernel."""

import functools
import linecache
import random
import signal
import sys
import threading
import time

import numpy
import pytest
import torch

from moe_course.grading.check import check
from moe_course.grading.exercises.rubric import hidden_points, points
from moe_course.grading.judge import live
from moe_course.grading.judge.rendering import as_html, as_text

VISIBLE = points("ffn_params") - hidden_points("ffn_params")


def ffn_params(d_model, d_ff):
    return 3 * d_model * d_ff


def ffn_flops(num_tokens, d_model, d_ff):
    return 2 * num_tokens * d_model * d_ff


def other_name(d_model, d_ff):
    return 3 * d_model * d_ff


def examine(*parts, **names):
    return live.examine(*parts, namespace=names, seed=3)


def test_returns_a_python_float(capsys):
    score = check(ffn_params)
    assert type(score) is float
    assert score == VISIBLE
    assert (
        f"1.2 ffn_params: passed, all {VISIBLE} visible points; 1 more is decided at grading"
        in capsys.readouterr().out
    )


def test_failure_explains_itself(capsys):
    assert check(ffn_flops) == 0.0
    text = capsys.readouterr().out
    for part in ("given    num_tokens = 1", "expected 36", "got      12", "?"):
        assert part in text


def test_found_by_the_name_in_the_namespace_first():
    assert examine(other_name, ffn_params=other_name).exercise == "ffn_params"
    partial = functools.partial(other_name)
    assert examine(partial, ffn_params=partial).status == "passed"


def test_found_by_its_own_name():
    assert examine(ffn_params).exercise == "ffn_params"


@pytest.mark.parametrize(("argument", "words"), [(print, "no exercise"), ("ffn_params", "without quotes")])
def test_wrong_argument_is_explained(argument, words):
    with pytest.raises(ValueError, match=words):
        check(argument)


def test_no_or_too_many_arguments():
    with pytest.raises(ValueError, match="needs the function"):
        check()
    with pytest.raises(ValueError, match="1 part"):
        check(ffn_params, ffn_params)


def test_the_librarys_version_is_refused():
    from moe_course.systems.accounting import ffn_params as theirs

    verdict = examine(theirs)
    assert (verdict.status, verdict.score) == ("refused", 0)
    assert "the library's" in as_text(verdict)


def snapshot():
    return (
        torch.get_rng_state().tolist(),
        numpy.random.get_state()[1].tolist(),
        random.getstate(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_default_device(),
    )


def test_global_state_is_restored():
    def vandal(d_model, d_ff):
        torch.manual_seed(0)
        numpy.random.seed(0)
        random.seed(0)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return 3 * d_model * d_ff

    torch.set_default_dtype(torch.float64)
    try:
        before = snapshot()
        assert examine(vandal, ffn_params=vandal).score == VISIBLE
        assert snapshot() == before
    finally:
        torch.set_default_dtype(torch.float32)


def test_checks_run_on_the_cpu_and_with_gradients_whatever_the_defaults():
    seen = []

    def curious(d_model, d_ff):
        seen.append((torch.empty(1).device.type, torch.is_grad_enabled(), torch.get_default_dtype()))
        return 3 * d_model * d_ff

    with torch.device("meta"), torch.no_grad():
        assert examine(curious, ffn_params=curious).score == VISIBLE
    assert set(seen) == {("cpu", True, torch.float32)}


def test_printing_and_warnings_stay_inside(capsys):
    def chatty(d_model, d_ff):
        import sys
        import warnings

        print("out")
        print("err", file=sys.stderr)
        warnings.warn("careful", stacklevel=1)
        return 3 * d_model * d_ff

    assert examine(chatty, ffn_params=chatty).status == "passed"
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_an_endless_loop_can_be_stopped():
    def endless(d_model, d_ff):
        until = time.monotonic() + 20  # a test that fails must end, too
        while time.monotonic() < until:
            pass

    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    # A test runner may have been started with the signal switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        verdict = examine(endless, ffn_params=endless)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert (verdict.status, verdict.score) == ("interrupted", 0)
    assert "loop" in as_text(verdict)


def test_quit_in_an_exercise_does_not_end_the_kernel():
    def leaving(d_model, d_ff):
        raise SystemExit

    assert examine(leaving, ffn_params=leaving).status == "failed"


def test_html_escapes_what_a_learner_wrote():
    def hostile(d_model, d_ff):
        raise ValueError("<script>alert(1)</script>")

    text = as_html(examine(hostile, ffn_params=hostile))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_seed_repeats_a_check():
    first, again = (live.examine(ffn_flops, namespace={}, seed=9) for _ in range(2))
    assert [r.message for r in first.checks] == [r.message for r in again.checks]


def test_seeds_differ_between_live_checks():
    assert len({live.examine(ffn_params, namespace={}).seed for _ in range(5)}) > 1


def test_a_class_typed_into_a_notebook_has_a_source(monkeypatch):
    """Such a class belongs to no file; the text of its cell is found through its methods."""
    cell = "size = 3\n\n\nclass MoELayer:\n    def forward(self, x):\n        return x\n"
    linecache.cache["<cell 7>"] = (len(cell), None, cell.splitlines(keepends=True), "<cell 7>")
    namespace = {"__name__": "__main__"}
    exec(compile(cell, "<cell 7>", "exec"), namespace)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    found = live.sources(["MoELayer"], [namespace["MoELayer"]])
    assert found == {"MoELayer": cell.partition("\n\n\n")[2].rstrip()}
