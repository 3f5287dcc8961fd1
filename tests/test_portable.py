"""What a learner runs also runs where there is no POSIX: no call that Windows lacks, and every text file as UTF-8.

Neither Windows nor macOS is at hand here. So the source is searched for such calls, and checks run in processes from
which they have been taken away.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import ROOT

PACKAGE = ROOT / "moe_course"
POSIX = {  # what Windows lacks
    "os": {
        *(
            "chown",
            "chroot",
            "fchmod",
            "fork",
            "forkpty",
            "getegid",
            "geteuid",
            "getgid",
            "getgroups",
            "getloadavg",
        ),
        *("getpgid", "getpgrp", "getpriority", "getuid", "initgroups", "killpg", "lchown", "mkfifo", "nice"),
        *(
            "openpty",
            "pidfd_open",
            "posix_spawn",
            "sched_getaffinity",
            "sched_setaffinity",
            "setegid",
            "seteuid",
        ),
        *(
            "setgid",
            "setgroups",
            "setpgid",
            "setpriority",
            "setresgid",
            "setresuid",
            "setsid",
            "setuid",
            "statvfs",
        ),
        *("sysconf", "wait", "wait3", "wait4", "waitid", "P_PID", "WEXITED", "WNOWAIT", "O_DIRECTORY"),
        *("O_NOFOLLOW", "O_NONBLOCK", "set_blocking"),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2"),
        *(
            "alarm",
            "getitimer",
            "setitimer",
            "ITIMER_REAL",
            "pause",
            "pthread_kill",
            "pthread_sigmask",
            "sigwait",
        ),
    },
    "socket": {"AF_UNIX", "recv_fds", "send_fds"},
    "faulthandler": {"register"},
}
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
LINUX_ONLY = {  # the sandbox, which asks for the platform before anything else, and tools of the authors
    *("grading/worker/fork_server.py", "grading/worker/sandbox.py", "grading/worker/sandboxed.py"),
    *("grading/worker/syscalls.py", "grading/worker/mounts.py", "authoring/mutants.py"),
}
ASKED = ("hasattr(", "getattr(", "sys.platform", "except (AttributeError")
BEHIND = {  # (file, function) that runs only after its caller has asked
    ("grading/worker/ranks.py", "_Rank"): "on_ranks",
    ("grading/worker/ranks.py", "_results"): "on_ranks",
    ("grading/worker/ranks.py", "_run"): "on_ranks",
}


def posix_calls(source: str) -> dict[str, set[str]]:
    """The names that only POSIX has, by the function or class at the top level ("" outside) that uses them unasked.

    A function has asked if its text has one of `ASKED`, or if it reads from /proc first and expects an OSError.
    """
    found: dict[str, set[str]] = {}
    for part in ast.parse(source).body:
        text = ast.unparse(part)
        if any(word in text for word in ASKED) or ("/proc/" in text and "suppress(OSError" in text):
            continue
        names = {
            f"{node.value.id}.{node.attr}"
            for node in ast.walk(part)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.attr in POSIX.get(node.value.id, ())
        }
        for node in ast.walk(part):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names |= MODULES & {*modules}
        if names:
            found.setdefault(getattr(part, "name", ""), set()).update(names)
    return found


def files() -> list[Path]:
    paths = [path for path in PACKAGE.rglob("*.py") if "_course" not in path.relative_to(PACKAGE).parts]
    return [path for path in paths if path.relative_to(PACKAGE).as_posix() not in LINUX_ONLY]


def test_nothing_that_a_learner_runs_needs_posix_unasked():
    found = {}
    for path in files():
        name = path.relative_to(PACKAGE).as_posix()
        calls = posix_calls(path.read_text(encoding="utf-8"))
        found |= {(name, part): names for part, names in calls.items() if (name, part) not in BEHIND}
    assert found == {}


def test_who_stands_behind_a_question_still_does():
    for (name, part), caller in BEHIND.items():
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        parts = {node.name: ast.unparse(node) for node in tree.body if hasattr(node, "name")}
        assert any(word in parts[caller] for word in ASKED)
        assert part in parts
    for name in LINUX_ONLY:
        assert (PACKAGE / name).is_file()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os\ndef f():\n    os.fork()", {"f": {"os.fork"}}),
        ("import os\ndef f():\n    if hasattr(os, 'fork'):\n        os.fork()", {}),
        ("import fcntl", {"": {"fcntl"}}),
        ("def f():\n    from resource import setrlimit", {"f": {"resource"}}),
        ("import signal\nsignal.signal(signal.SIGALRM, print)", {"": {"signal.SIGALRM"}}),
        ("import os\nos.getpid()", {}),
    ],
)
def test_the_search_for_posix(source, names):
    assert posix_calls(source) == names


def unencoded(source: str) -> list[str]:
    """The calls that read or write text in the encoding of the machine, whatever that is."""
    found = []
    for node in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [
            arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        ]
        is_text = name in ("read_text", "write_text") or (
            name == "open" and not any("b" in mode for mode in modes)
        )
        is_file = name != "open" or isinstance(
            node.func, ast.Name
        )  # zip and tar files open their members as bytes
        if is_text and is_file and "encoding" not in {keyword.arg for keyword in node.keywords}:
            found.append(ast.unparse(node))
    return found


def test_text_files_name_their_encoding():
    paths = [path for path in PACKAGE.rglob("*.py") if "_course" not in path.relative_to(PACKAGE).parts]
    assert [call for path in paths for call in unencoded(path.read_text(encoding="utf-8"))] == []


def test_the_search_for_encodings():
    assert unencoded("p.read_text()\nopen(p)\nopen(p, 'w')\np.write_text('b')") == [
        *("p.read_text()", "open(p)", "open(p, 'w')", "p.write_text('b')")
    ]
    assert (
        unencoded("open(p, 'rb')\nopen(p, 'w', encoding='utf-8')\narchive.open(member)\np.read_bytes()") == []
    )


NEEDED_HERE = {
    "getuid",
    "O_NOFOLLOW",
    "O_NONBLOCK",
    "SIGKILL",
}  # by Python and packages, which know this system
WITHOUT = f"""\
import faulthandler, os, signal, socket, subprocess, sys
for module, names in {POSIX!r}.items():
    for name in names & vars(sys.modules[module]).keys() - {NEEDED_HERE!r}:
        delattr(sys.modules[module], name)
"""
LIVE = """\
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
def right(d_model, d_ff):
    return 3 * d_model * d_ff
def endless(d_model, d_ff):
    while True:
        pass
for written in (right, endless):
    print(grade("ffn_params", LiveSubject({"ffn_params": written}, seconds=0.5), seed=3, hidden=False).status)
"""


@pytest.fixture
def run(tmp_path):
    """Runs Python without what Windows lacks, and so do the processes that it starts."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "def ffn_params(d_model, d_ff):\n    return 2 * d_model * d_ff", encoding="utf-8"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}

    def run(*words):
        said = subprocess.run(
            [sys.executable, *words], env=env, cwd=tmp_path, capture_output=True, encoding="utf-8"
        )
        return said.stdout or said.stderr

    assert (
        run("-c", "import os, signal; print(hasattr(os, 'fork') or hasattr(signal, 'SIGALRM'))") == "False\n"
    )
    return run


def test_a_live_check_without_posix_judges_and_stops_an_endless_loop(run):
    assert run("-c", LIVE).split() == ["passed", "timed", "out"], "see the output"


def test_the_commands_of_a_learner_without_posix(run):
    verdict = json.loads(run("-m", "moe_course", "check", "mine.py", "--json"))
    assert (verdict["status"], verdict["diagnosis"]["name"]) == ("failed", "two_matrices")
    assert "ready" in run("-m", "moe_course", "start", "work")
    assert "Next: 0.1" in run("-m", "moe_course", "status", "work")
