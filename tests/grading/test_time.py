"""Time is counted fairly: what neighbours use is not charged, and an exercise that timed out is tried again alone."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from graders.probes import call
from graders.probes.capacity import ask_layer

from moe_course.grading.exercises.rubric import points
from moe_course.grading.judge import files
from moe_course.grading.judge.files import Turns, grade_submission
from moe_course.grading.judge.subject import SubjectLost, WorkerSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.submission.attempts import read
from moe_course.grading.worker import clock
from moe_course.grading.worker.clock import Clock

linux = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


@pytest.fixture
def times(monkeypatch):
    """The clock's three sources, in seconds, to be set by a test."""
    now = {"wall": 100.0, "waited": 5.0, "used": 1.0}
    monkeypatch.setattr(clock.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(clock, "waited", lambda process: now["waited"])
    monkeypatch.setattr(clock, "used", lambda processes: now["used"])
    return now


def test_waiting_for_a_processor_is_not_charged(times):
    ticking = Clock(1)
    times.update(wall=128.0, waited=32.0)
    assert ticking.spent() == 1.0
    assert ticking.over(2.0) == "no answer within 20 seconds on a busy machine"
    assert ticking.over(3.0) == ""
    times.update(wall=131.0)
    assert ticking.over(4.0) == "no answer within 4 seconds"


def test_a_family_that_uses_all_processors_has_an_end(times):
    ticking = Clock(1)
    times.update(wall=101.0, used=10.0)
    assert ticking.over(3.0) == "its processes used more than 9 seconds of processor time"
    assert ticking.over(4.0) == ""


@linux
def test_the_kernel_tells_how_long_a_process_waited():
    """Two processes on one processor: each waits for the other."""
    spin = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\nwhile True: pass"
    pair = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(2)]
    try:
        until = time.monotonic() + 60
        while min(clock.waited(process.pid) for process in pair) < 0.2 and time.monotonic() < until:
            time.sleep(0.05)
        assert min(clock.waited(process.pid) for process in pair) >= 0.2
        assert all(clock.used([process.pid]) > 0 for process in pair)
    finally:
        for process in pair:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert clock.waited(pair[0].pid) == clock.used([pair[0].pid]) == 0.0


@linux
def test_a_sleeping_answer_is_charged():
    with WorkerSubject(["import time\ndef f(): time.sleep(60)"], seconds=0.5) as worker:
        with pytest.raises(SubjectLost, match=r"no answer within 0\.5 seconds") as lost:
            worker.run(call, "f")
        assert lost.value.status == "timed out"


def test_what_the_judge_takes_for_an_answer_is_not_charged():
    """And while it works it out, the deadline does not pass either."""
    x_BSD = torch.zeros(1, 2, 2)
    source = "import time\ndef f(layer, x_BSD, place):\n    time.sleep({})\n    return layer(x_BSD)"

    def slowly(x, dy):
        time.sleep(2.0)
        return x

    with WorkerSubject([source.format(0)], seconds=1.5) as worker:
        worker.allow(1.9)
        assert worker.run(ask_layer, "f", x_BSD, 0, 1, answers=slowly).error is None
        assert worker._left > 0
    late = pytest.raises(SubjectLost, match=r"no answer within 0\.5 seconds")
    with WorkerSubject([source.format(60)], seconds=0.5) as worker, late:
        worker.run(ask_layer, "f", x_BSD, 0, 1, answers=slowly)


@linux
def test_beside_processes_that_spin_nobody_loses_a_point():
    """An answer that takes 0.4 s of processor time, waits longer than 0.6 s for its processor, and has 1 s."""
    allowed = os.sched_getaffinity(0)
    source = """
        import time
        slept = []
        def ffn_params(d_model, d_ff):
            until = time.process_time() + 0.4
            while not slept and time.process_time() < until:
                pass
            slept.append(1)
            return 3 * d_model * d_ff
    """
    with WorkerSubject([textwrap.dedent(source)], seconds=1.0) as worker:
        worker.start()
        process = worker._worker.process.pid
        for thread in os.listdir(f"/proc/{process}/task"):
            os.sched_setaffinity(int(thread), [min(allowed)])
        spin = f"import os; os.sched_setaffinity(0, [{min(allowed)}])\nwhile True: pass"
        # each in a session of its own: the kernel may share a processor out among sessions, not processes
        command = [sys.executable, "-S", "-c", spin]
        others = [subprocess.Popen(command, start_new_session=True) for _ in range(4)]
        try:
            before = clock.waited(process)
            verdict = grade("ffn_params", worker, 1)
            kept_waiting = clock.waited(process) - before
        finally:
            for other in others:
                other.kill()
                other.wait()
    assert (verdict.status, verdict.score) == ("passed", points("ffn_params"))
    assert kept_waiting > 0.6


def test_turns_let_one_be_alone():
    turns, log, entered = Turns(), [], threading.Event()

    def beside():
        with turns.beside_others():
            entered.set()
            log.append("beside")

    with turns.beside_others(), turns.beside_others():
        log.append("two at once")
        alone = threading.Thread(target=lambda: enter(turns, log))
        alone.start()
    alone.join(60)
    with turns.alone():
        other = threading.Thread(target=beside)
        other.start()
        assert not entered.wait(0.2), "nobody begins while one is alone"
        log.append("alone again")
    other.join(60)
    assert log == ["two at once", "alone", "alone again", "beside"]


def enter(turns, log):
    with turns.alone():
        log.append("alone")


def test_an_exercise_that_timed_out_is_tried_again_alone(tmp_path, monkeypatch):
    """And that verdict counts; the exercises that were in time are not tried again."""
    source = "def ffn_params(d_model, d_ff): return 3 * d_model * d_ff\n"
    source += "def ffn_flops(num_tokens, d_model, d_ff): return 6 * num_tokens * d_model * d_ff\n"
    (tmp_path / "mine.py").write_text(source)
    tried, slow = [], {"ffn_flops": 1}

    def hurried(name, worker, seed):
        tried.append((name, files._turns._wanted))
        if slow.pop(name, 0):
            return files.without_running(name, "timed out", "no answer within 30 seconds")
        return grade(name, worker, seed, hidden=False)

    monkeypatch.setattr(files, "grade_public", hurried)
    monkeypatch.setattr(files, "grade_hidden", lambda public, worker: public)
    verdicts = grade_submission(read(tmp_path / "mine.py"), ["ffn_params", "ffn_flops"], 1)
    assert [verdict.status for verdict in verdicts] == ["passed", "passed"]
    assert tried == [("ffn_params", 0), ("ffn_flops", 0), ("ffn_flops", 1)]
