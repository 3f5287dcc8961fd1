"""A cohort on a Dask cluster: a real scheduler and two worker processes, one of them killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from moe_course.grading.cohort import grade_cohort, pools
from moe_course.grading.cohort.ledger import Ledger
from moe_course.grading.exercises.rubric import points

pytestmark = pytest.mark.slow
distributed = pytest.importorskip("distributed")

RIGHT = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n"
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def scheduler():
    """A Dask scheduler of this machine alone. Yields its address."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--no-dashboard"]  # fmt: skip
    process = subprocess.Popen(
        command, env=ENVIRON, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        for line in process.stderr:
            if found := re.search(r"tcp://127\.0\.0\.1:\d+", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found[0]
                break
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


address = pytest.fixture(scheduler)


@pytest.fixture
def worker(address, tmp_path):
    """Starts worker processes, each for one submission at a time."""
    started = []

    def start(*options):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny",
                   "--no-dashboard", "--local-directory", str(tmp_path), *options]  # fmt: skip
        started.append(
            subprocess.Popen(
                command,
                env=ENVIRON,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_workers(address, number):
    with distributed.Client(address, set_as_default=False, timeout=120) as client:
        client.wait_for_workers(number, timeout=300)


def hand_in(folder, number):
    folder.mkdir()
    for n in range(number):
        (folder / f"s{n:02}.py").write_text(f"# {n}\n{RIGHT}")
    return folder


def slow(submission, names, seed, limits):
    from test_cohort import fake

    time.sleep(0.5)
    return fake(submission, names, seed, limits)


def test_a_worker_that_dies_loses_nothing_and_another_grades_its_submissions(address, worker, tmp_path):
    from test_cluster import slow  # by the name under which workers find it

    doomed, _ = worker(), worker()
    wait_for_workers(address, 2)
    submitted, out = hand_in(tmp_path / "in", 16), tmp_path / "out"

    def kill():
        while len(list(out.glob("records/*/*.json"))) < 4:
            time.sleep(0.05)
        os.killpg(doomed.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    records = grade_cohort.grade(submitted, out, seed=5, unsafe=True, dask=address, grader=slow)
    assert doomed.wait(60) == -signal.SIGKILL
    assert [r["student"] for r in records] == [f"s{n:02}" for n in range(16)]
    assert {r["reason"] for r in records} == {""}
    assert {(r["status"], r["score"]) for r in records} == {("graded", points("ffn_params"))}
    logged = [line["student"] for line in Ledger(out).log.records()]
    assert sorted(logged) == sorted(set(logged)) == [r["student"] for r in records]
    here = grade_cohort.grade(submitted, tmp_path / "here", seed=5, unsafe=True, grader=slow)
    differing = {name for a, b in zip(records, here, strict=True) for name in a if a[name] != b[name]}
    assert differing <= {"started", "graded", "seconds", "key"}


def test_a_real_submission_in_a_sandbox_of_the_worker(needs_sandbox, address, worker, tmp_path):
    worker()
    wait_for_workers(address, 1)
    (found,) = grade_cohort.grade(hand_in(tmp_path / "in", 1), tmp_path / "out", seed=5, dask=address)
    assert (found["status"], found["score"], found["sandboxed"]) == ("graded", points("ffn_params"), True)


def test_a_worker_without_a_sandbox_refuses(address, worker, tmp_path):
    taken_away = tmp_path / "taken_away.py"
    taken_away.write_text(
        "from moe_course.grading.worker import sandbox\nsandbox.problem = lambda: 'no bubblewrap here'\n"
    )
    worker("--preload", str(taken_away))
    wait_for_workers(address, 1)
    with pytest.raises(
        ValueError, match="no worker of the cluster can grade: it runs no submission without a sandbox"
    ):
        grade_cohort.grade(hand_in(tmp_path / "in", 1), tmp_path / "out", seed=5, dask=address)


def test_when_all_workers_are_gone_the_rest_waits_for_another_run(address, worker, tmp_path, monkeypatch):
    from test_cluster import slow

    monkeypatch.setattr(pools, "PATIENCE", 5.0)
    doomed = worker()
    wait_for_workers(address, 1)
    out = tmp_path / "out"

    def kill():
        while len(list(out.glob("records/*/*.json"))) < 2:
            time.sleep(0.05)
        os.killpg(doomed.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    submitted = hand_in(tmp_path / "in", 8)
    records = grade_cohort.grade(submitted, out, seed=5, unsafe=True, dask=address, grader=slow)
    lost = [r for r in records if r["status"] == "ungradable"]
    assert lost
    assert all(r["again"] and "no worker graded it" in r["reason"] for r in lost)
    again = grade_cohort.grade(submitted, out, resume=True, unsafe=True, grader=slow)
    assert {r["status"] for r in again} == {"graded"}


def test_an_address_where_no_scheduler_answers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "PATIENCE", 1.0)
    with pytest.raises(ValueError, match=r"--dask tcp://127\.0\.0\.1:1: no scheduler answers there"):
        grade_cohort.grade(
            hand_in(tmp_path / "in", 1), tmp_path / "out", unsafe=True, dask="tcp://127.0.0.1:1"
        )
