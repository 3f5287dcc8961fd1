"""Progress: a bar where it can be drawn, else a line every half minute."""

import sys

import pytest

from moe_course import progress
from moe_course.progress import Progress, clock_time


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, steps, seconds, **options):
    with Progress("trained", steps, "steps", **options) as shown:
        for step in range(shown.done, steps):
            clock[0] += seconds
            shown.add(note=f"loss {step}")


@pytest.fixture
def a_file(monkeypatch):
    monkeypatch.setattr(progress, "_can_draw", lambda: False)


def test_a_log_file_gets_a_line_every_half_minute_and_one_at_the_end(a_file, clock, capsys):
    run(clock, steps=1000, seconds=0.125)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "trained: 1 of 1,000 steps, loss 0, 2:05 left",
        "trained: 241 of 1,000 steps, loss 240, 1:35 left",
        "trained: 481 of 1,000 steps, loss 480, 1:05 left",
        "trained: 721 of 1,000 steps, loss 720, 0:35 left",
        "trained: 961 of 1,000 steps, loss 960, 0:05 left",
        "trained: 1,000 of 1,000 steps, loss 999, 0:00 left",
    ]
    assert "\r" not in err


def test_what_was_done_before_does_not_count_as_fast(a_file, clock, capsys):
    run(clock, steps=1000, seconds=60, done=998)
    assert capsys.readouterr().err.splitlines()[0] == "trained: 999 of 1,000 steps, loss 998, 1:00 left"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("trained", 3, "steps") as shown:
        shown.add(3, "loss 1")
    err = capsys.readouterr().err
    assert "\r" in err
    assert "3/3" in err
    assert "of 3 steps" not in err


@pytest.mark.parametrize("can_draw", [True, False])
def test_nothing_is_shown_where_nobody_wants_it(monkeypatch, capsys, can_draw):
    monkeypatch.setattr(progress, "_can_draw", lambda: can_draw)
    with Progress("trained", 2, "steps", shown=False) as shown:
        shown.add(2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05"), (86_400, "24:00:00")]
)
def test_times_as_a_clock_shows_them(seconds, text):
    assert clock_time(seconds) == text


def test_only_a_terminal_and_a_kernel_can_draw(monkeypatch):
    """That somebody has imported ipykernel makes a process no kernel."""
    import ipykernel  # noqa: F401
    import IPython

    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not progress._can_draw()
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": None})())
    assert progress._can_draw()
