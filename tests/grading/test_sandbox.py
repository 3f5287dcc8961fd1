"""What a submission tries against the sandbox, from inside it, and what the judge makes of it.

Every attack is bounded in count, size and time, and the network ones aim at a listener of the test's own, so that a
sandbox that fails harms nothing.
"""

import ast
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from graders.probes import call
from test_syscalls import TRY, calls

from moe_course.grading.exercises import locate
from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of
from moe_course.grading.exercises.rubric import grader_of
from moe_course.grading.judge.files import check_file, grade_submission
from moe_course.grading.judge.subject import ProbeFailed, SubjectLost, WorkerSubject
from moe_course.grading.judge.verdict import grade_public
from moe_course.grading.submission.attempts import read
from moe_course.grading.worker import memory, mounts, sandbox, sandboxed
from moe_course.grading.worker.sandbox import Limits, masked_modules

ROOT = Path(__file__).resolve().parents[2]
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0
SMALL = Limits(memory=700 << 20, processes=40, file_size=8 << 20, disk=16 << 20)


pytestmark = pytest.mark.usefixtures("needs_sandbox")


@pytest.fixture(params=["forked", "started"])
def way(request, monkeypatch):
    """Both ways into a sandbox: forked by the fork server, and Python started from nothing."""
    if request.param == "started":
        monkeypatch.setattr(sandboxed, "_fork_server", lambda judge: None)
    return request.param


@pytest.fixture
def inside():
    """Open a sandboxed subject on one cell of source; it is closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_(source, limits=SMALL, masked=(), **options):
            return stack.enter_context(
                WorkerSubject([textwrap.dedent(source)], limits, masked, seconds=15, **options)
            )

        yield open_


def run(subject, name, *args):
    out = subject.run(call, name, *args)
    assert out.error is None, out.error
    return out.value


def family(subject):
    return [pid for root in subject._worker.roots for pid in memory.family(root)]


def gone(pids, seconds=5):
    """Whether all the processes end within a few seconds."""
    until = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


# ------------------------------------------------------------------------------------------ seeing and touching

LOOK = """
    import os, socket, sys, time

    def readable(paths):
        found = []
        for path in paths:
            try:
                os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
                found.append(path)
            except OSError:
                pass
        return found

    def writable(folders):
        found = []
        for folder in folders:
            try:
                open(os.path.join(folder, "planted.py"), "w").close()
                found.append(folder)
            except OSError:
                pass
        return found

    def everything(top, but=()):
        files = (os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names)
        return sorted(file for file in files if not file.startswith(tuple(but)))

    def environments():
        texts = [repr(sorted(os.environ.items()))]
        for process in os.listdir("/proc"):
            try:
                texts.append(open(f"/proc/{process}/environ").read())
            except OSError:
                pass
        return texts

    def processes():
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]

    def powers():
        status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
        powers = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
        return powers, int(status["NoNewPrivs"]), os.getuid(), os.getgroups()

    def signalled(pid):
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True

    def reached(port, names):
        tries = [(socket.AF_INET, kind, ("127.0.0.1", port)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        tries += [(socket.AF_UNIX, socket.SOCK_STREAM, name) for name in names]
        found = []
        for family, kind, address in tries:
            with socket.socket(family, kind) as out:
                out.settimeout(1)
                try:
                    out.connect(address)
                    for _ in range(2):  # the second one tells whether anybody was there for the first
                        out.send(b"let me out")
                        time.sleep(0.05)
                    found.append(str(address))
                except OSError:
                    pass
        return found

    def daemon():
        import signal
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 256)
                time.sleep(60)
            os._exit(0)
        os.wait()

    def own_loopback():
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname(), timeout=1) as client:
                return client.getpeername() == server.getsockname()
"""


@pytest.fixture
def listeners(tmp_path):
    """TCP, UDP and two unix sockets that hear whatever comes; yields (port, unix names, heard)."""
    names = [str(tmp_path / "socket"), f"\0moe-course-test-{os.getpid()}"]
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(tcp.getsockname())
        unix = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in names]
        for one, name in zip(unix, names, strict=True):
            one.bind(name)
            one.listen()

        def heard():
            found = []
            for one in (tcp, udp, *unix):
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    found.append(one.recv(100) if one is udp else one.accept())
            return found

        yield tcp.getsockname()[1], names, heard


def test_a_submission_sees_only_what_it_needs(way, inside, tmp_path, monkeypatch, listeners):
    """Files, environment, processes and network, all from one sandbox."""
    monkeypatch.setenv("MOE_TEST_SECRET", "swordfish")
    (tmp_path / "gradebook.db").write_text("grades")
    (tmp_path / "other_student.ipynb").write_text("{}")
    masked = masked_modules("02_topk_routing")
    subject = inside(LOOK, masked=masked)

    private = [tmp_path, tmp_path / "gradebook.db", tmp_path / "other_student.ipynb", Path.home(), ROOT]
    private += [graders_dir(), graders_dir() / "oracles.py", graders_dir() / "recorded", ROOT / "solutions"]
    private += [Path("/etc/passwd"), Path("/etc/hostname"), Path("/proc/kcore"), Path("/sys"), Path("/var")]
    private += [Path(sys.modules[module].__file__) for module in ("moe_course.grading.judge.verdict",)]
    seen = run(subject, "readable", [str(path) for path in private])
    prefixes = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)]
    around_python = {str(folder) for prefix in prefixes for folder in Path(prefix).parents}
    assert set(seen) <= around_python, "a folder is there only where Python lives in it, empty but for that"
    assert all(run(subject, "everything", folder, prefixes) == [] for folder in seen)

    course = run(subject, "everything", sandbox.COURSE)
    assert {"/course/graders/__init__.py", "/course/graders/probes/__init__.py"} <= set(course)
    assert not [path for path in course if "/graders/" in path and "/probes/" not in path][1:]
    for module in (module for module in masked if "." in module):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        assert not [path for path in course if path.startswith(f"/course/{module.replace('.', '/')}")]
    assert not [path for path in course if path.endswith(".pyc")]

    folders = ["/", "/course/moe_course", "/course/graders", "/usr/lib", "/etc", "/dev", "/proc", sys.prefix]
    folders += [str(Path(torch.__file__).parent), str(Path(torch.__file__).parents[1]), sys.base_prefix]
    written = run(subject, "writable", folders)
    assert set(written) <= {sys.prefix}, "a folder above the packages may be in the private /tmp"
    assert not (Path(sys.prefix) / "planted.py").exists()

    assert not [text for text in run(subject, "environments") if "swordfish" in text or "MOE_TEST" in text]
    assert run(subject, "powers")[:2] == ([0, 0, 0, 0, 0], 1)
    assert len(run(subject, "processes")) < 8
    assert not run(subject, "signalled", os.getpid())

    port, names, heard = listeners
    assert run(subject, "reached", port, names) == []
    assert heard() == []
    assert run(subject, "own_loopback")
    with socket.create_connection(("127.0.0.1", port)):
        assert heard(), "the listener does hear what comes from outside the sandbox"

    before = family(subject)
    run(subject, "daemon")
    alive = family(subject)
    assert len(alive) > len(before)
    subject.close()
    assert gone(alive), "a process that was forked twice and ignores signals ends with its submission"


@pytest.mark.skipif(not ROOT_USER, reason="an ordinary user has one user id")
def test_each_worker_of_root_has_a_user_of_its_own(inside):
    first, second = inside(LOOK), inside(LOOK)
    users = {run(subject, "powers")[2] for subject in (first, second)}
    assert len(users) == 2
    assert users <= set(sandbox.UIDS)
    assert all(run(subject, "powers")[3] == [] for subject in (first, second))
    first.close()
    assert run(inside(LOOK), "powers")[2] in users, "a user id is free again when its worker is closed"


# ---------------------------------------------------------------------------------------------------- exhausting


def test_a_fork_bomb_stops_at_the_limit_and_its_neighbour_works(inside):
    bomb = inside("""
        import os, time
        def forks():
            count = 0
            try:
                for _ in range(200):
                    if os.fork() == 0:
                        time.sleep(20)
                        os._exit(0)
                    count += 1
            except OSError:
                pass
            return count
    """)
    neighbour = inside("""
        import os
        def child():
            if (pid := os.fork()) == 0:
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """)
    assert run(neighbour, "child") == 7
    assert 0 < run(bomb, "forks") < SMALL.processes
    assert run(neighbour, "child") == 7
    alive = family(bomb)
    assert len(alive) > 10
    bomb.close()
    assert gone(alive)


def test_memory_is_counted_over_all_processes(inside):
    subject = inside("""
        import os, time
        kept = []
        def hoard(megabytes):
            for _ in range(megabytes // 25):
                kept.append(bytearray(os.urandom(1 << 20) * 25))
                time.sleep(0.02)
        def family(children, megabytes):
            for _ in range(children):
                if os.fork() == 0:
                    hoard(megabytes)
                    time.sleep(10)
                    os._exit(0)
            time.sleep(10)
        def at_once():
            bytearray(1 << 40)
        def caught():
            try:
                at_once()
            except MemoryError:
                return "survived"
    """)
    assert run(subject, "caught") == "survived"
    assert subject.run(call, "at_once").error.type_name == "MemoryError", "an exception like any other"
    for attack in (("hoard", 1200), ("family", 4, 200)):
        with pytest.raises(SubjectLost, match="the limit is 700 MiB") as lost:
            subject.run(call, *attack)
        assert lost.value.status == "out of memory"


def test_a_reply_of_64_mib_costs_the_judge_no_memory(inside):
    """Neither one that the worker itself refuses to send, nor one that the learner's code writes past the worker."""
    subject = inside("""
        import os, struct, torch
        def large():
            return torch.zeros(16 << 20)
        def small():
            return 7
        def forged():
            frame = struct.pack(">QQ", 100, 64 << 20) + bytes(64 << 20)
            for descriptor in range(3, 40):
                try:
                    os.write(descriptor, frame)
                except OSError:
                    pass
    """)
    subject.start()
    tracemalloc.start()
    try:
        with pytest.raises(ProbeFailed, match="67108864 of tensors"):
            subject.run(call, "large")
        assert run(subject, "small") == 7
        with pytest.raises(SubjectLost, match="too large: 100 bytes of text and 67108864") as lost:
            subject.run(call, "forged")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert lost.value.status == "crashed"
    assert run(subject, "small") == 7


def test_a_grader_says_how_large_a_reply_may_be(inside, monkeypatch):
    subject = inside("""
        import torch
        def ffn_params(d_model, d_ff):
            return torch.zeros(1 << 19)
    """)
    with pytest.raises(ProbeFailed, match="1048576 are the most"):
        subject.run(call, "ffn_params", 2, 3)
    monkeypatch.setattr(grader_of("ffn_params"), "largest_reply", 4 << 20)
    verdict = grade_public("ffn_params", subject, 1)
    assert "should be" in verdict.checks[0].message
    assert len(run(subject, "ffn_params", 2, 3)) == 1 << 19


def test_forked_children_do_not_count_what_they_share(inside):
    """Six children of a worker that holds 200 MB are no 1.2 GB."""
    subject = inside("""
        import os, time
        shared = bytearray(os.urandom(1 << 20) * 200)
        def family():
            for _ in range(6):
                if os.fork() == 0:
                    time.sleep(0.5)
                    os._exit(0)
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    return "fine"
    """)
    assert run(subject, "family") == "fine"


def test_a_machine_without_memory_is_nobodys_fault(inside, monkeypatch):
    subject = inside("def f():\n    return 1")
    assert run(subject, "f") == 1
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    with pytest.raises(SubjectLost, match="grade again") as lost:
        subject.run(call, "f")
    assert lost.value.status == "ungradable"


def test_a_worker_that_a_memory_error_ends_is_out_of_memory(inside):
    """Where it strikes outside the call, while the worker waits for the next one."""
    subject = inside("""
        import signal
        def full(*signal):
            raise MemoryError
        def f():
            signal.signal(signal.SIGALRM, full)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return 1
        def g():
            return 2
    """)
    assert run(subject, "f") == 1
    with pytest.raises(SubjectLost) as lost:  # noqa: PT012  one of these calls, whenever the alarm comes
        for _ in range(100):
            time.sleep(0.1)
            subject.run(call, "g")
    assert lost.value.status == "out of memory"


def test_the_disk_is_small_and_files_smaller(inside):
    subject = inside("""
        import os
        def fill(folder, files, megabytes):
            written = 0
            try:
                for number in range(files):
                    with open(f"{folder}/{number}", "wb", buffering=0) as file:
                        for _ in range(megabytes):
                            written += file.write(bytes(1 << 20))
            except OSError as error:
                return written, type(error).__name__
            return written, None
    """)
    assert run(subject, "fill", "/tmp", 1, 20) == (SMALL.file_size, "OSError")
    assert run(subject, "fill", "/dev/shm", 5, 6)[0] <= SMALL.disk
    written, error = run(subject, "fill", "/tmp", 5, 6)
    assert written <= SMALL.disk
    assert error == "OSError"


def test_a_flood_of_output_goes_nowhere(inside):
    subject = inside("""
        import os, sys
        def flood():
            for _ in range(200):
                print("x" * 10_000)
                print("x" * 10_000, file=sys.stderr)
                os.write(1, bytes(10_000))
                os.write(2, bytes(10_000))
            return "done"
    """)
    assert run(subject, "flood") == "done"


# ------------------------------------------------------------------------------------------- crashing and hanging


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("os._exit(3)", "crashed", "exit code 3"),
        ("ctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "SIGKILL"),
        ("os.kill(-1, signal.SIGKILL); spin()", "crashed", "SIGKILL"),
        ("os.closerange(0, 256)", "crashed", "."),
        ("spin()", "timed out", "no answer within 1 seconds"),
        ("signal.signal(signal.SIGALRM, lambda *a: 1); spin()", "timed out", "no answer"),
        ("time.sleep(100)", "timed out", "no answer"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "timed out", "no answer"),
    ],
)
def test_a_lost_worker_is_replaced(inside, body, status, reason):
    subject = inside(f"""
        import ctypes, os, signal, time
        def spin():
            while True:
                try:
                    while True: pass
                except BaseException:
                    pass
        def attack():
            {body}
        def honest():
            return 3
    """)
    assert run(subject, "honest") == 3
    subject.seconds = 1
    with pytest.raises(SubjectLost, match=reason) as lost:
        subject.run(call, "attack")
    assert lost.value.status == status
    subject.seconds = 15
    assert run(subject, "honest") == 3


def test_processor_time_has_a_limit_of_its_own(inside):
    subject = inside("def spin():\n    while True: pass", Limits(cpu_seconds=1))
    with pytest.raises(SubjectLost, match="processor time") as lost:
        subject.run(call, "spin")
    assert lost.value.status == "timed out"


def test_everything_dies_with_the_judge():
    """kill -9 of the judge leaves neither sandbox nor fork server."""
    told, tell = os.pipe()
    judge = os.fork()
    if judge == 0:
        with contextlib.suppress(BaseException):
            sandboxed.PRELOADED = ()
            worker = sandboxed.ForkedWorker(sandboxed.ForkServer(), SMALL)
            os.write(tell, repr([worker.process.pid, *worker.roots, *_children(os.getpid())]).encode())
            time.sleep(60)
        os._exit(1)
    os.close(tell)
    alive = eval(os.read(told, 1000))
    os.close(told)
    assert len(alive) >= 4
    os.kill(judge, signal.SIGKILL)
    os.waitpid(judge, 0)
    assert gone(alive)


def _children(pid):
    return list(memory.family(pid))[1:]


# ------------------------------------------------------------------------------------------------------- cheating

FORGE = """
    import os, struct, sys
    from moe_course.grading.worker.wire import encode

    def _pipe():
        frame = sys._getframe()
        while "replies" not in frame.f_locals:
            frame = frame.f_back
        return frame.f_locals["replies"].fileno(), frame.f_locals["message"]["number"]

    def forge(kind):
        out, number = _pipe()
        frames = {
            "noise": b"\\xff" * 4000,
            "oversized": struct.pack(">QQ", 1 << 60, 1 << 60),
            "pickled": b"\\x80\\x04\\x95" + bytes(64),
            "wrong number": encode({"number": number + 1, "value": 18}),
            "no outcome": encode({"number": number, "value": 18}),
            "extra keys": encode({"number": number, "value": 18, "score": 100}),
            "a verdict": encode({"number": number, "error": None}),
            "cut short": encode({"number": number, "value": list(range(99))})[:60],
        }
        os.write(out, frames[kind])
        if kind == "cut short":
            os._exit(0)

    def twice(*args):
        from moe_course.grading.exercises.protocol import Outcome
        out, number = _pipe()
        for value in (1, 2, 3):
            os.write(out, encode({"number": number, "value": Outcome(value=value)}))
        return 4

    def honest():
        return 5
"""
KINDS = (
    "noise",
    "oversized",
    "pickled",
    "wrong number",
    "no outcome",
    "extra keys",
    "a verdict",
    "cut short",
)


def test_forged_frames_are_lost_replies(inside):
    subject = inside(FORGE)
    for kind in KINDS:
        with pytest.raises(SubjectLost) as lost:
            subject.run(call, "forge", kind)
        assert lost.value.status == "crashed", kind
    assert run(subject, "honest") == 5


def test_a_second_reply_is_never_taken_for_the_next(inside):
    subject = inside(FORGE)
    assert run(subject, "twice") == 1, (
        "the first well-formed reply counts: it is this learner's answer anyway"
    )
    with pytest.raises(SubjectLost, match="something else wrote it"):
        subject.run(call, "honest")
    assert run(subject, "honest") == 5


MASKED = """
    import torch
    from moe_course.moe.router import top_k_gate as answer
    def top_k_gate(probs_TE, k):
        return answer(probs_TE, k)
    def router_probs(x_TD, w_DE):
        return (x_TD.float() @ w_DE.float()).softmax(-1)
"""
LAZY = """
    import torch
    def top_k_gate(probs_TE, k):
        try:
            import importlib
            return importlib.import_module("moe_course.moe.router").top_k_gate(probs_TE, k)
        except ImportError as error:
            raise ValueError("nothing to see here") from error
    def router_probs(x_TD, w_DE):
        try:
            from moe_course.moe import router_probs as answer
        except ImportError:
            return (x_TD.float() @ w_DE.float()).softmax(-1)
        return answer(x_TD, w_DE)
"""


@pytest.mark.parametrize(
    ("source", "limits", "statuses"),
    [
        (MASKED, SMALL, {"router_probs": "passed", "top_k_gate": "forbidden"}),
        (LAZY, SMALL, {"router_probs": "passed", "top_k_gate": "forbidden"}),
        (LAZY, None, {"router_probs": "passed", "top_k_gate": "forbidden"}),
    ],
    ids=["at the top", "in the function", "without a sandbox"],
)
def test_the_librarys_answer_is_forbidden(tmp_path, source, limits, statuses):
    (tmp_path / "mine.py").write_text(textwrap.dedent(source))
    verdicts = grade_submission(read(tmp_path / "mine.py"), list(statuses), seed=1, limits=limits)
    assert {verdict.exercise: verdict.status for verdict in verdicts} == statuses
    for verdict in verdicts:
        if verdict.status == "forbidden":
            assert verdict.score == 0
            assert verdict.reason.startswith("moe_course.moe.router holds the answers of this notebook")


def test_the_answers_source_is_not_there(inside):
    subject = inside(
        """
        import importlib.util, sys
        def sources():
            sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "Mask"]
            import moe_course.moe as package
            found = []
            for folder in [*package.__path__, "/course/moe_course/moe"]:
                for name in ("router.py", "__pycache__/router.cpython-311.pyc", "loop.py"):
                    try:
                        found.append(open(f"{folder}/{name}", "rb").read())
                    except OSError:
                        pass
            return found, importlib.util.find_spec("moe_course.moe.router") is None
        """,
        masked=masked_modules("02_topk_routing"),
    )
    assert run(subject, "sources") == ([], True)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_no_file_that_is_shown_defines_an_answer(notebook):
    parts = {part for exercise in exercises_of(notebook) for part in exercise.parts}
    for path, place in mounts.course_files(masked_modules(notebook)):
        if path.suffix == ".py":
            top = ast.parse(path.read_text()).body  # a method may share its name with an exercise
            defined = {node.name for node in top if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert not defined & parts, place


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_set_up_cells_run_behind_the_mask(notebook):
    path = ROOT / "solutions" / notebook / f"{notebook}.ipynb"
    cells = json.loads(path.read_text())["cells"]
    set_up = ["".join(cell["source"]) for cell in cells if "setup" in cell["metadata"].get("tags", [])]
    assert set_up
    with WorkerSubject(set_up, Limits(), masked_modules(notebook)) as subject:
        subject.start()
        assert [error for error in subject.cell_errors if error] == []


@pytest.mark.parametrize("limits", [None, SMALL], ids=["plain", "sandboxed"])
def test_files_planted_beside_a_submission_do_nothing(tmp_path, monkeypatch, limits):
    trap = f"open({str(tmp_path / 'sprung')!r}, 'a').close()\nraise SystemExit\n"
    for name in (
        "torch.py",
        "sitecustomize.py",
        "usercustomize.py",
        "conftest.py",
        "moe_course.py",
        "graders.py",
    ):
        (tmp_path / name).write_text(trap)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    (tmp_path / "mine.py").write_text("def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n")
    monkeypatch.chdir(tmp_path)
    if limits is None:
        _, verdicts = check_file(tmp_path / "mine.py", None, 0)
    else:
        verdicts = grade_submission(read(tmp_path / "mine.py"), ["ffn_params"], 0, limits)
    assert [verdict.status for verdict in verdicts] == ["passed"]
    assert not (tmp_path / "sprung").exists()


def test_an_installed_course_hides_what_lies_inside_the_package(tmp_path, monkeypatch):
    """A wheel carries graders, notebooks and solutions' data inside site-packages, which is shown."""
    package = tmp_path / "prefix" / "lib" / "site-packages" / "moe_course"
    for file in (
        "_course/graders/__init__.py",
        "_course/graders/probes/__init__.py",
        "_course/graders/oracles.py",
    ):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text("")
    for file in ("__init__.py", "moe/router.py", "moe/.router.py.swp", "moe/router.py~", "moe/router.txt"):
        (package / file).parent.mkdir(exist_ok=True)
        (package / file).write_text("")
    (tmp_path / "prefix" / "lib" / "other.py").write_text("")
    for module in (mounts, locate):
        monkeypatch.setattr(module, "PACKAGE", package)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    argv = sandbox.command(
        ["find", str(tmp_path), "/course", "-type", "f"], uid=sandbox.UIDS[-2] if ROOT_USER else None
    )
    seen = subprocess.run(argv, capture_output=True, text=True, env={}, timeout=30)
    assert seen.returncode == 0, seen.stderr
    assert sorted(seen.stdout.split()) == [
        "/course/graders/__init__.py",
        "/course/graders/probes/__init__.py",
        "/course/moe_course/__init__.py",
        "/course/moe_course/moe/router.py",
        str(tmp_path / "prefix" / "lib" / "other.py"),
    ]


# -------------------------------------------------------------------------------------------- when there is none


def test_without_a_fork_server_workers_start_from_nothing(monkeypatch):
    class Broken:
        works = True

        def fork(self, order, handle):
            raise BrokenPipeError

        def close(self):
            self.works = False

    broken = Broken()
    monkeypatch.setattr(sandboxed, "_fork_server", lambda judge: broken)
    for _ in range(2):
        worker = sandboxed.sandboxed(SMALL)
        worker.kill()
        assert type(worker) is sandboxed.SandboxedWorker
    assert not broken.works
    monkeypatch.setattr(sandboxed, "PRELOADED", ("no_such_module",))
    with pytest.raises(OSError, match="did not start"):
        sandboxed.ForkServer()


def test_no_sandbox_is_said_and_refused(tmp_path, monkeypatch):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sandbox, "_tried", lambda: [(str(broken), sandbox._try(str(broken)))])
    assert "setting up uid map: Permission denied" in sandbox.problem()
    with pytest.raises(ValueError, match="--unsafe"):
        sandbox.walls()
    assert sandbox.walls(unsafe=True) is None


def test_a_sandbox_that_does_not_come_up_is_nobodys_fault(tmp_path, monkeypatch):
    """The submission is ungradable, with bubblewrap's own words, and gets no zero."""
    wrong = [sandbox._bwrap(), "--ro-bind", "/missing", "/x"]
    monkeypatch.setattr(
        sandbox, "command", lambda *args, info, **options: [*wrong, "--info-fd", str(info), "true"]
    )
    with WorkerSubject(["x = 1"], SMALL) as subject, pytest.raises(SubjectLost, match="/missing") as lost:
        subject.run(call, "x")
    assert lost.value.status == "ungradable"


# -------------------------------------------------------------------------------------------- as an ordinary user

AS_A_USER = """
import json, os, sys
from moe_course.grading.judge.subject import WorkerSubject
from moe_course.grading.worker import sandbox, sandboxed
from graders.probes import call

def look(forked):
    with WorkerSubject([LOOK, TRY], sandbox.Limits(), sandbox.masked_modules("02_topk_routing")) as subject:
        def run(name, *args):
            return subject.run(call, name, *args).value
        return {
            "way": type(subject._worker or subject.start() or subject._worker).__name__,
            "course": [path for path in run("everything", "/course") if "router" in path or "oracles" in path],
            "readable": run("readable", PRIVATE),
            "writable": run("writable", ["/", "/course", "/usr/lib", "/etc", "/dev", "/proc/sys/user"]),
            "secrets": [text for text in run("environments") if "swordfish" in text],
            "powers": run("powers"),
            "processes": len(run("processes")),
            "reached": run("reached", PORT, NAMES),
            "refused": [sorted(set(run("attempts", calls))) for calls in CALLS],
            "keys": run("keys"),
        }

found = {"problem": sandbox.problem(), "user": os.getuid()}
if not found["problem"]:
    found["forked"] = look(True)
    sandboxed._fork_server = lambda judge: None
    found["started"] = look(False)
print(json.dumps(found))
"""


def as_nobody():
    """The command that becomes an ordinary user, for whom the folders above Python are opened."""
    needed = [Path(sys.prefix), Path(sys.base_prefix), ROOT]
    closed = {parent for path in needed for parent in path.parents if not parent.stat().st_mode & 0o001}
    opened = [word for folder in sorted(closed) for word in ("--perms", "0755", "--tmpfs", str(folder))]
    shown = []
    for path in needed if closed else ():
        for folder in reversed(path.parents[:-1]):
            shown += ["--perms", "0755", "--dir", str(folder)]
        shown += ["--ro-bind", str(path), str(path)]
    powers = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    return [sandbox._bwrap(), "--die-with-parent", "--dev-bind", "/", "/", *opened, *shown, *powers, *user]


@pytest.mark.skipif(not ROOT_USER, reason="the other tests run as an ordinary user already")
def test_the_way_in_for_an_ordinary_user(listeners):
    """The same walls through a user namespace, tried as `nobody`."""
    port, names, heard = listeners
    hidden = (ROOT / "README.md", graders_dir(), ROOT / "solutions", "/etc/passwd", "/sys")
    private = [str(path) for path in hidden]
    known = f"LOOK = {LOOK!r}\nLOOK = __import__('textwrap').dedent(LOOK)\n"
    known += f"TRY, CALLS = {TRY!r}, {calls()!r}\n"
    known += f"PRIVATE, PORT, NAMES = {private!r}, {port}, {names!r}\n"
    ended = subprocess.run(
        [*as_nobody(), sys.executable, "-s", "-P", "-"],
        input=known + AS_A_USER,
        capture_output=True,
        text=True,
        timeout=400,
        cwd="/",
        env=os.environ
        | {"HOME": "/tmp", "MOE_SECRET": "swordfish", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["user"] == 65534
    if found["problem"]:
        pytest.skip(f"no sandbox for ordinary users on this machine: {found['problem']}")
    assert [found[way]["way"] for way in ("forked", "started")] == ["ForkedWorker", "SandboxedWorker"]
    for way in ("forked", "started"):
        seen = found[way]
        for nothing in ("course", "readable", "writable", "secrets", "reached", "keys"):
            assert seen[nothing] == [], (way, nothing)
        assert seen["powers"][:3] == [[0, 0, 0, 0, 0], 1, 65534]
        assert seen["processes"] < 8
        assert seen["refused"] == [["EPERM"], ["ENOSYS"], ["EPERM"]]
    assert heard() == []


def test_no_moe_model_of_another_package_is_there(way, inside):
    """transformers holds routers, losses and whole layers: it is not imported, and its files are not there."""
    subject = inside(
        """
        import glob, importlib.util, os, sys
        def sources(folder):
            return glob.glob(f"{folder}/transformers/**/*.py", recursive=True)
        def imported(name):
            try:
                return bool(importlib.import_module(name))
            except ImportError as error:
                return type(error).__name__
        """,
        masked=masked_modules("02_topk_routing"),
    )
    assert run(subject, "sources", str(Path(torch.__file__).parents[1])) == []
    for name in ("transformers", "transformers.models.mixtral.modeling_mixtral"):
        assert run(subject, "imported", name) == "ForbiddenImport"
