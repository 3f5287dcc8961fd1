"""The self-check in a learner's kernel."""

import contextlib
import functools
import linecache
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch

from moe_course.grading.check import check
from moe_course.grading.exercises.rubric import hidden_points, points
from moe_course.grading.judge import live, memory, subject
from moe_course.grading.judge.rendering import as_html, as_text
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.worker import serve
from moe_course.grading.worker.serve import interrupted_after

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
        timer.start()
        until = time.monotonic() + 20  # a test that fails must end, too
        while time.monotonic() < until:
            pass

    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    # A test runner may have been started with the signal switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
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


def test_a_check_has_a_limit_of_time_and_says_where_the_code_was():
    def endless(d_model, d_ff):
        while d_model:
            pass

    started = time.monotonic()
    verdict = grade("ffn_params", LiveSubject({"ffn_params": endless}, seconds=0.3), seed=3, hidden=False)
    assert time.monotonic() - started < LiveSubject({}).seconds
    assert (verdict.status, verdict.score) == ("timed out", 0)
    text = as_text(verdict)
    assert "stopped after 0.3 seconds, in endless, at: " in text
    assert "ever end?" in text


@pytest.fixture
def no_alarms(monkeypatch):
    """As on Windows."""
    monkeypatch.delattr(signal, "setitimer", raising=False)


def test_an_endless_loop_ends_where_there_are_no_alarms(no_alarms):
    test_a_check_has_a_limit_of_time_and_says_where_the_code_was()


def test_an_endless_loop_ends_in_another_thread_than_the_main_one():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(test_a_check_has_a_limit_of_time_and_says_where_the_code_was).result()


def test_what_ends_in_time_is_left_alone_without_alarms(no_alarms):
    before = threading.active_count()
    for _ in range(20):
        with interrupted_after(0.01, "the cell", TimeoutError):
            pass
    time.sleep(0.05)
    assert threading.active_count() == before


def test_code_that_goes_on_after_its_end_is_stopped_again_without_alarms(no_alarms, monkeypatch):
    monkeypatch.setattr(serve, "AGAIN", 0.05)
    stops = []
    with contextlib.suppress(TimeoutError), interrupted_after(0.05, "the cell", TimeoutError):
        while len(stops) < 2:
            try:
                while True:
                    pass
            except TimeoutError as stopped:
                stops.append(str(stopped))
    assert stops == ["the cell was stopped after 0.05 seconds"] * 2


def test_all_probes_together_have_a_limit(monkeypatch):
    monkeypatch.setattr(subject, "EXERCISE_SECONDS", 0.5)

    def slow(d_model, d_ff):
        time.sleep(0.2)
        return 3 * d_model * d_ff

    verdict = grade("ffn_params", LiveSubject({"ffn_params": slow}), seed=3, hidden=False)
    assert verdict.status == "timed out"


def test_the_alarm_of_others_is_put_back():
    if not hasattr(signal, "setitimer"):
        pytest.skip("no alarms")
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    old = signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        examine(ffn_params)
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *old)


def test_what_the_code_printed_is_shown_in_part_however_much_it_is():
    """On the input that the report shows, not on those after it; and an endless print fills no memory."""

    def chatty(d_model, d_ff):
        print("sizes", d_model, d_ff)
        for number in range(100_000):
            print("line", number)
        return 2 * d_model * d_ff

    verdict = examine(chatty, ffn_params=chatty)
    shown = verdict.first_failure.failure.given
    assert verdict.printed.startswith(f"sizes {shown['d_model']} {shown['d_ff']}\nline 0\n")
    assert verdict.printed.endswith("line 99999")
    assert "characters left out" in verdict.printed
    assert len(verdict.printed) < 4000
    assert "  | line 99999" in as_text(verdict)
    assert "line 99999" in as_html(verdict)


def test_what_code_that_passes_printed_is_shown_too():
    def chatty(d_model, d_ff):
        print("<b>", d_model)
        return 3 * d_model * d_ff

    verdict = examine(chatty, ffn_params=chatty)
    assert verdict.status == "passed"
    assert "  | <b> " in as_text(verdict)
    assert "&lt;b&gt; " in as_html(verdict)
    assert "Your code printed" not in as_text(examine(ffn_params))


RIGHT = "def ffn_params(d_model, d_ff):\n    size = d_model * d_ff\n    return 3 * size\n"


def kernel(*cells):
    """The namespace of a kernel in which cells were run, as IPython runs them and keeps their text."""
    namespace = {"__name__": "__main__", "In": [""]}
    for cell in cells:
        name = f"<cell {len(linecache.cache)} {hash(cell)}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        namespace["In"].append(cell)
        try:
            exec(compile(cell, name, "exec"), namespace)
        except Exception:
            continue
    return namespace


def in_kernel(*cells):
    namespace = kernel(*cells, "check(ffn_params)")
    return live.examine(namespace["ffn_params"], namespace=namespace, seed=3)


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        (RIGHT.replace("(d_model, d_ff):", "(d_model, d_ff:"), "ended in a SyntaxError in line 1"),
        ("import no_such_module\n" + RIGHT, "stopped with an error before its end"),
    ],
)
def test_code_that_its_cell_does_not_hold_any_more_is_not_graded_silently(edited, said):
    verdict = in_kernel(RIGHT, edited)
    assert (verdict.status, verdict.score) == ("refused", 0)
    assert said in as_text(verdict)
    assert in_kernel(RIGHT, edited, RIGHT).status == "passed"
    assert in_kernel(RIGHT, "def something_else(:").status == "passed"


def test_a_renamed_function_is_noticed():
    verdict = in_kernel(RIGHT, RIGHT.replace("def ffn_params", "def ffn_parameters"))
    assert verdict.status == "passed"
    assert "defines ffn_parameters, which is much like it: was it renamed?" in as_text(verdict)
    assert not in_kernel(RIGHT, "def area(a, b):\n    return a * b").notes
    assert not in_kernel(RIGHT.replace("ffn_params", "ffn_parameters"), RIGHT).notes


def test_the_class_in_memory_is_compared_too():
    cell = "class MoELayer:\n    def forward(self, x):\n        return x\n"
    namespace = kernel(cell, cell.replace("x):", "x:"))
    assert "SyntaxError" in memory.outdated("MoELayer", namespace["MoELayer"], namespace["In"])
    assert memory.outdated("MoELayer", kernel(cell)["MoELayer"], [cell]) == ""
