"""The worker process and the live kernel reach the same verdicts, and a lost worker costs its exercise only."""

import dataclasses
import functools
import itertools
import json
import linecache
import os
import textwrap

import pytest
import torch
from graders.probes import call, vjp
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_course.grading.exercises.protocol import Outcome, Raised
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.exercises.rubric import criteria, grader_of
from moe_course.grading.judge.files import grade_submission
from moe_course.grading.judge.rendering import as_dict, as_html, as_text
from moe_course.grading.judge.subject import LiveSubject, ProbeFailed, SubjectLost, WorkerSubject, _open
from moe_course.grading.judge.verdict import grade
from moe_course.grading.submission.attempts import read
from moe_course.grading.worker.wire import decode, encode

MIXED = textwrap.dedent(
    """
    import torch
    import torch.nn.functional as F
    print("noise on stdout that must not reach the judge")

    def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD):
        return (F.silu(x_TD @ w_up_DF) * (x_TD @ w_gate_DF)) @ w_down_FD

    def ffn_params(d_model, d_ff):
        return 3 * d_model * d_ff

    def ffn_flops(num_tokens, d_model, d_ff):
        raise RuntimeError("lost my way")

    def moe_ffn_params(d_model, d_ff, num_experts, top_k, num_shared=0):
        raise SystemExit

    def active_matched_d_ff(d_ff_dense, top_k, num_shared=0):
        return torch.tensor(d_ff_dense // (top_k + num_shared))
    """
)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return read(path)

    return write


def outline(verdict):
    return verdict.status, verdict.score, [(r.criterion.name, r.status, r.message) for r in verdict.checks]


def test_live_and_worker_agree(write):
    submission = write(MIXED)
    namespace = {}
    linecache.cache["<mixed>"] = (
        len(MIXED),
        None,
        MIXED.splitlines(keepends=True),
        "<mixed>",
    )  # as a kernel does
    exec(compile(MIXED, "<mixed>", "exec"), namespace)
    live = [grade(name, LiveSubject(namespace), seed=5) for name in submission.exercises]
    worker = grade_submission(submission, submission.exercises, seed=5)
    assert [outline(v) for v in live] == [outline(v) for v in worker]
    assert [v.diagnosis for v in live] == [v.diagnosis for v in worker]
    assert {v.exercise: v.status for v in live} == {
        "swiglu_ffn": "failed",
        "ffn_params": "passed",
        "ffn_flops": "failed",
        "moe_ffn_params": "failed",
        "active_matched_d_ff": "failed",
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [("os._exit(3)", "crashed"), ("os.kill(os.getpid(), 11)", "crashed"), ("while True: pass", "timed out")],
)
def test_a_lost_worker_costs_its_own_exercise_only(write, body, status):
    submission = write(f"""
        import os
        def ffn_params(d_model, d_ff):
            {body}
        def ffn_flops(num_tokens, d_model, d_ff):
            return 6 * num_tokens * d_model * d_ff
    """)
    with WorkerSubject(submission.cells, seconds=2) as worker:
        lost, fine = (grade(name, worker, seed=1) for name in submission.exercises)
    assert (lost.status, lost.score) == (status, 0)
    assert lost.reason
    assert fine.status == "passed"


STUBBORN = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True: pass
def ffn_params(d_model, d_ff): return 1
"""


def test_a_cell_that_cannot_be_stopped_is_not_run_again():
    cells = [STUBBORN, "def ffn_flops(*sizes): return 7"]
    with WorkerSubject(cells, cell_seconds=0.2) as worker:
        assert worker.run(call, "ffn_flops").value == 7
        assert worker.lost_cells[0].status == "timed out"
        error = worker.run(call, "ffn_params", 1, 2).error
        assert "ffn_params is not defined: its cell stopped with timed out: while a cell ran" in error.message


def ended(tmp_path, how):
    return f"""
import os
with open({str(tmp_path / "runs")!r}, "a") as file:
    file.write("x")
def ffn_params(d_model, d_ff): return 3 * d_model * d_ff
{how}
"""


def test_cells_that_end_the_process_are_not_run_again(write, tmp_path):
    """They cost what they define, and nothing else."""
    submission = write(ended(tmp_path, "os._exit(3)"))
    others = write(
        "def ffn_flops(num_tokens, d_model, d_ff): return 6 * num_tokens * d_model * d_ff", "more.py"
    )
    both = dataclasses.replace(
        submission,
        cells=submission.cells + others.cells,
        definitions=submission.definitions | others.definitions,
    )
    first, second = grade_submission(both, ["ffn_params", "ffn_flops"], seed=1)
    assert (first.status, second.status) == ("crashed", "passed")
    assert "while a cell ran: the process ended with exit code 3" in first.reason
    assert "does it in a notebook?" in first.needs
    assert (tmp_path / "runs").read_text() == "x"


def test_what_hints_at_a_failure_of_the_sandbox_is_said(write):
    """Beside the score, for the instructor; an ordinary mistake is not mentioned, nor is what passed."""
    submission = write("""
        def ffn_params(d_model, d_ff):
            import a_module_of_the_learners_own
        def ffn_flops(num_tokens, d_model, d_ff):
            return number_of_matrices
        def active_matched_d_ff(d_ff_dense, top_k, num_shared=0):
            return 7 // 0
        def moe_ffn_params(d_model, d_ff, num_experts, top_k, num_shared=0):
            return (num_shared or what_is_this), 3
        def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD):
            return (torch.nn.functional.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD
        import torch
    """)
    verdicts = {v.exercise: v for v in grade_submission(submission, submission.exercises, seed=1)}
    told = {name: verdict.needs for name, verdict in verdicts.items()}
    assert "ModuleNotFoundError: No module named 'a_module_of_the_learners_own'" in told.pop("ffn_params")
    assert "NameError: name 'number_of_matrices'" in told.pop("ffn_flops")
    assert set(told.values()) == {""}
    assert as_dict(verdicts["ffn_params"])["needs"] == verdicts["ffn_params"].needs


def test_a_notebook_whose_every_cell_ends_the_process_is_given_up(tmp_path):
    with WorkerSubject([ended(tmp_path, "os._exit(3)")] * 9) as worker:
        for _ in range(2):
            with pytest.raises(SubjectLost, match=r"while a cell ran: .* exit code 3"):
                worker.run(call, "ffn_params", 1, 2)
    assert (tmp_path / "runs").read_text() == "x" * 4


def errors_of(worker):
    return [error and error.type_name for error in worker.cell_errors]


def test_a_slow_experiment_is_stopped_and_costs_no_grade():
    """Nor what its own cell defines below it; and many of them do not use up the time of an exercise."""
    slow = ["while True: pass\ndef ffn_params(d_model, d_ff): return y"] * 7
    with WorkerSubject(["x = 1", *slow, "y = x + 1"], cell_seconds=0.3) as worker:
        worker.allow(0.5)
        assert worker.run(call, "ffn_params", 1, 2).value == 2
        assert errors_of(worker) == [None, *["TimeoutError"] * 7, None]


def test_an_exercise_has_a_time_in_all(write):
    submission = write("""
        import time
        def ffn_params(d_model, d_ff):
            time.sleep(0.3)
            return 3 * d_model * d_ff
    """)
    with WorkerSubject(submission.cells) as worker:
        worker.start()
        worker.allow(0.8)
        assert grade("ffn_params", worker, seed=1).status == "timed out"
        worker.allow(20)
        assert grade("ffn_params", worker, seed=1).status == "passed"


def test_no_process_outlives_its_worker(write):
    submission = write("def ffn_params(d_model, d_ff):\n    import os\n    return os.getpid()")
    with WorkerSubject(submission.cells) as worker:
        pid = worker.run(call, "ffn_params", 1, 2).value
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_cells_in_order_and_errors_reported_not_fatal():
    cells = ["a = 1", "%matplotlib inline", "b = a + missing", "!ls", "def c(): return a + 1", "d = ("]
    with WorkerSubject(cells) as worker:
        assert worker.run(call, "c").value == 2
        assert errors_of(worker) == [None, None, "NameError", None, None, "SyntaxError"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ffn_params = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def ffn_params(d_model, d_ff)\n    return 1", "SyntaxError"),
        ("%%time\nffn_params = 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_kept_a_function_from_being_defined_is_said(source, words):
    with WorkerSubject([source]) as worker:
        out = worker.run(call, "ffn_params", 1, 2)
    assert out.error.type_name == "NameError"
    assert "ffn_params is not defined: its cell stopped with" in out.error.message
    assert words in out.error.message


def test_an_error_loses_no_helper_below_it_and_brings_no_old_code_back():
    """A kernel stops at an error. Here new names are still defined, and what there was keeps its value."""
    cells = [
        "def area(a, b): return a * b\ndone = []",
        """print(x_TD.shape)
def helper(a, b): return area(a, b)
helper = __import__("functools").partial(helper, 3)
import math as m
for _ in range(2):
    def in_a_loop(): return 5""",
        """raise RuntimeError("what follows is old")
def area(a, b): return 0
def helper(a): return 0
unused, area = 1, None
done.append(3)""",
        """%%capture out
print(nothing)
def captured(): return 9""",
        "def report(): return helper(4), m.floor(2.5), in_a_loop(), captured(), area(1, 2), unused, len(done)",
    ]
    with WorkerSubject(cells) as worker:
        assert worker.run(call, "report").value == (12, 2, 5, 9, 2, 1, 0)
        assert errors_of(worker) == [None, "NameError", "RuntimeError", "NameError", None]


def test_code_travels_whole_and_a_file_full_of_data_is_refused():
    """Beyond 20,000 characters, where any other text is cut, and beyond the four megabytes of a reply."""
    long = 'text = """' + "é\n" * 1_500_000 + '"""\ndef ffn_params(d_model, d_ff): return len(text)'
    with WorkerSubject(["x = 1", long]) as worker:
        assert worker.run(call, "ffn_params", 1, 2).value == 3_000_000
        assert errors_of(worker) == [None, None]
    with (
        WorkerSubject([long, long]) as worker,
        pytest.raises(SubjectLost, match="more than 8: is there data") as lost,
    ):
        worker.start()
    assert lost.value.status == "ungradable"


def test_only_probes_run_in_the_worker():
    with WorkerSubject(["x = 1"]) as worker, pytest.raises(ProbeFailed, match="is no probe"):
        worker.run(os.getcwd)


def test_a_submission_does_not_see_that_nbgrader_runs(monkeypatch, write):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    submission = write(
        "def ffn_params(d_model, d_ff):\n    import os\n    return 'NBGRADER_EXECUTION' in os.environ"
    )
    with WorkerSubject(submission.cells) as worker:
        assert worker.run(call, "ffn_params", 1, 2).value is False


def test_call_reports_what_happened():
    def half_edit(x, n):
        x += 1
        return x * n, n

    subject = LiveSubject({"f": half_edit, "g": lambda: 1 / 0})
    out = subject.run(call, "f", torch.zeros(2), 3)
    assert torch.equal(out.value[0], torch.full((2,), 3.0))
    assert out.value[1] == 3
    assert torch.equal(out.inputs[0], torch.ones(2))
    assert subject.run(call, "g").error.type_name == "ZeroDivisionError"
    assert subject.run(call, "missing").error.type_name == "NameError"


def test_the_graders_own_tensors_are_never_edited():
    mine = torch.zeros(2)
    LiveSubject({"f": lambda x: x.add_(1)}).run(call, "f", mine)
    assert mine.sum() == 0


def test_vjp_keeps_none_apart_from_zero():
    subject = LiveSubject({"f": lambda a, b, c: (a * 2 + b.detach() * 0, c * 0)})
    args = (torch.ones(2), torch.ones(2), torch.ones(2))
    _, (da, db, dc) = subject.run(vjp, "f", args, (torch.ones(2), torch.ones(2)), wrt=(0, 1, 2)).value
    assert torch.equal(da, torch.full((2,), 2.0))
    assert db is None
    assert torch.equal(dc, torch.zeros(2))


# ------------------------------------------------------------------------------ whatever a worker may say

numbers = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3)
tensors = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from([torch.float32, torch.int64, torch.bool, torch.float64]),
)
raised_ = st.builds(Raised, st.text(max_size=3), st.just(()) | st.just(("ValueError",)), st.text(max_size=3))
anything = st.recursive(
    numbers | tensors | raised_,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        | st.builds(
            Outcome,
            inner,
            st.lists(st.booleans(), max_size=2).map(tuple),
            st.lists(inner, max_size=3).map(tuple),
            st.none() | raised_,
        )
    ),
    max_leaves=8,
)
outcomes = st.builds(
    Outcome,
    anything,
    st.lists(st.booleans(), max_size=2).map(tuple),
    st.lists(anything, max_size=3).map(tuple),
    st.none() | raised_,
)
replies = (
    outcomes.map(lambda value: {"value": value})
    | anything.map(lambda value: {"value": value})
    | raised_.map(lambda error: {"raised": error})
    | anything
)


class Puppet(WorkerSubject):
    """A worker that says what it is told to, frame by frame."""

    def __init__(self, replies):
        super().__init__([])
        self.replies = itertools.cycle(replies)

    def run(self, probe, *args, **kwargs):
        reply = next(self.replies)
        if isinstance(reply, dict):
            reply = {"number": 7, **reply}
        return _open(decode(encode(reply)), 7, probe)


@given(name=st.sampled_from(list(EXERCISES)), replies=st.lists(replies, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_no_reply_disturbs_the_judge(name, replies):
    verdict = grade(name, Puppet(replies), seed=1)
    assert verdict.status in ("failed", "crashed")
    assert 0 <= verdict.score < verdict.max_score
    json.dumps(as_dict(verdict)).encode()
    as_text(verdict).encode()
    as_html(verdict).encode()


def test_a_verdict_keeps_no_replies():
    """Neither through the traceback of a failure nor through what caused it."""
    verdict = grade(
        "top_k_gate", LiveSubject({"top_k_gate": lambda probs_TE, k: (probs_TE, probs_TE)}), seed=1
    )
    failures = [result.failure for result in verdict.checks if result.failure]
    assert len(failures) > 2
    assert {(f.__traceback__, f.__context__, f.__cause__) for f in failures} == {(None, None, None)}


def test_a_fault_of_the_graders_own_is_never_kept_quiet(monkeypatch):
    for line in criteria(grader_of("ffn_params")):
        broken = functools.wraps(getattr(grader_of("ffn_params"), f"test_{line.name}"))(
            lambda *args: {}["missing"]
        )
        monkeypatch.setattr(grader_of("ffn_params"), f"test_{line.name}", broken)
    verdict = grade("ffn_params", Puppet([{"value": Outcome(value=1)}]), seed=1)
    assert (verdict.status, verdict.score) == ("failed", 0)
    assert "the grader could not judge this reply (KeyError" in verdict.reason
    with pytest.raises(KeyError):
        grade("ffn_params", LiveSubject({"ffn_params": lambda *args: 1}), seed=1)
