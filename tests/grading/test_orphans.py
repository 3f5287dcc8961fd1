"""Nothing of a judge that was killed goes on: no learner's loop without end, and no rank."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")

WORKER = """
from moe_course.grading.exercises.locate import make_graders_importable
from moe_course.grading.judge.subject import WorkerSubject
make_graders_importable()
from graders.probes import call
cell = "import os\\ndef spin(path):\\n    open(path, 'w').write(str(os.getpid()))\\n    while True: pass"
WorkerSubject([cell]).run(call, "spin", {path!r})
"""
RANKS = """
import os
from moe_course.grading.worker.ranks import on_ranks
def spin(rank):
    open({path!r} + str(rank), "w").write(str(os.getpid()))
    while True: pass
on_ranks(2, spin)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within_a_minute(seen):
    end = time.monotonic() + 60
    while not seen() and time.monotonic() < end:
        time.sleep(0.05)
    assert seen()


@pytest.mark.parametrize(("judge", "names"), [(WORKER, [""]), (RANKS, ["0", "1"])], ids=["worker", "ranks"])
def test_what_a_killed_judge_had_started_ends(tmp_path, judge, names):
    path = str(tmp_path / "pid")
    started = subprocess.Popen([sys.executable, "-c", judge.format(path=path)], start_new_session=True)
    files = [Path(path + name) for name in names]
    try:
        within_a_minute(lambda: all(file.exists() and file.read_text() for file in files))
        spinning = [int(file.read_text()) for file in files]
        assert all(map(alive, spinning))
    finally:
        started.kill()
        started.wait()
    try:
        within_a_minute(lambda: not any(map(alive, spinning)))
    finally:
        for pid in filter(alive, spinning):
            os.kill(pid, signal.SIGKILL)
