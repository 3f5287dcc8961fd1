"""Whoever waits for an answer that runs on and on is told so, and can stop it."""

from __future__ import annotations

import io
import threading
from contextlib import redirect_stderr

import IPython.display
import pytest

from moe_course.command import cli
from moe_course.grading.judge import live, patience
from moe_course.grading.judge.files import check_file
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.worker.settings import Nowhere

LONG = 30  # seconds for what takes a moment, so that a busy machine fails no test


class Heard(io.StringIO):
    """A stream that tells when something has been written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.something = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        self.something.set()
        return written


@pytest.fixture
def heard(monkeypatch) -> Heard:
    """Where complaints go, once a test has redirected them: pytest has a stream of its own in each phase."""
    monkeypatch.setattr(patience, "AFTER", 0.01)
    return Heard()


def test_it_is_said_while_what_is_printed_leads_nowhere(heard):
    with redirect_stderr(heard), patience.told("still running"), redirect_stderr(Nowhere()):
        assert heard.something.wait(LONG)
    assert heard.getvalue() == "still running\n"


def test_nothing_is_said_of_what_ends_soon(heard, monkeypatch):
    monkeypatch.setattr(patience, "AFTER", LONG)
    before = threading.active_count()
    with redirect_stderr(heard), patience.told("still running"):
        pass
    assert (heard.getvalue(), threading.active_count()) == ("", before)


def test_in_a_notebook_the_words_are_taken_back(monkeypatch):
    shown, something = [], threading.Event()

    def publish(data, *, transient, update):
        shown.append((data["text/html"], transient["display_id"], update))
        something.set()

    monkeypatch.setattr(patience, "AFTER", 0.01)
    monkeypatch.setattr(patience, "_kernel", lambda: True)
    monkeypatch.setattr(IPython.display, "publish_display_data", publish)
    with patience.told("<still>"):
        assert something.wait(LONG)
    (first, place, new), (last, same_place, changed) = shown
    assert (first, last) == ("&lt;still&gt;", "")
    assert (new, changed) == (False, True)
    assert place == same_place


def test_a_check_says_how_long_it_may_take_and_how_to_stop_it(heard):
    def ffn_params(d_model, d_ff):
        assert heard.something.wait(LONG)
        return 3 * d_model * d_ff

    with redirect_stderr(heard):
        assert live.examine(ffn_params, namespace={"ffn_params": ffn_params}).status == "passed"
    assert "1.2 ffn_params is still running. One call may take 30 seconds" in heard.getvalue()
    assert "stop button" in heard.getvalue()


def test_a_check_of_a_file_says_so_too(heard, tmp_path):
    path = tmp_path / "answer.py"
    path.write_text("import time\n\ndef ffn_params(a, b):\n    time.sleep(0.1)\n    return 3 * a * b\n")
    with redirect_stderr(heard):
        _, (verdict,) = check_file(path, None, 3)
    assert verdict.status == "passed"
    assert f"{path}: its cells are still running." in heard.getvalue()
    assert f"{path}: 1.2 ffn_params is still running." in heard.getvalue()
    assert "Ctrl-C" in heard.getvalue()


def test_ctrl_c_stops_one_check_in_a_notebook_and_a_whole_run_on_files(monkeypatch, capsys):
    class Interrupted(LiveSubject):
        def run(self, probe, *args, **kwargs):
            raise KeyboardInterrupt

    class InterruptedWorker:
        printed, stood_in, run = "", frozenset(), Interrupted.run

    assert grade("ffn_params", Interrupted({}), 3).status == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        grade("ffn_params", InterruptedWorker(), 3)
    monkeypatch.setattr(cli, "_params", Interrupted({}).run)
    assert cli.main(["params"]) == 130
    assert capsys.readouterr().err == "moe-course: interrupted\n"
