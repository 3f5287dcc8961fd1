"""What hostile submissions put in place of an answer, and what each of them gets for it.

Most of them give the right answer only where the trick worked (`won()`), so that a hole shows as points. Every one
is bounded in count, size and time, and writes nothing that matters even where nothing stops it. PLACES stands for a
dict of the paths and ports that the test lends as targets.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from moe_course.grading.exercises.rubric import points


@dataclass(frozen=True)
class Attack:
    """The source that replaces the cell of `exercise`, and the status and score of that exercise."""

    source: str
    status: str = "failed"
    score: int = 0
    exercise: str = "ffn_params"
    kept: tuple[str, ...] = ()  # exercises that the attacker answers honestly besides


def attack(source, *args, **kwargs):
    return Attack(textwrap.dedent(source).strip(), *args, **kwargs)


def trick(source, *args, **kwargs):
    """An attack whose answer is right if the function `won` says so."""
    answer = "\n\ndef ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff if won() else 0"
    return Attack(textwrap.dedent(source).strip() + answer, *args, **kwargs)


RIGHT = points("ffn_params")
SHAPE = 1  # the point for the right shape, which a wrong tensor can have
WRONG = "def ffn_params(d_model, d_ff): return 0"
WRONG_TENSOR = "def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD): return torch.full_like(x_TD, 7.0)"

OBJECTS = {
    "always_equal": attack(
        """
        class Equal:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __getattr__(self, name): return Equal()
            def __call__(self, *args, **kwargs): return Equal()
            def __float__(self): return 1e9
            def __int__(self): return 18
            def __hash__(self): return 0
            def __bool__(self): return True
            @property
            def __class__(self): return int
        def ffn_params(d_model, d_ff): return Equal()
        """
    ),
    "int_subclass": attack(
        """
        class Equal(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def ffn_params(d_model, d_ff): return Equal(1)
        """
    ),
    "metaclass_posing_as_int": attack(
        """
        class Posing(type):
            def __eq__(cls, other): return True
            def __hash__(cls): return hash(int)
        class Number(metaclass=Posing):
            __module__, __qualname__ = "builtins", "int"
        Number.__name__ = "int"
        def ffn_params(d_model, d_ff): return Number()
        """
    ),
    "torch_function": attack(
        """
        class Right(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                return torch.tensor(True)
        def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD):
            return torch.zeros_like(x_TD).as_subclass(Right)
        """,
        "crashed",
        exercise="swiglu_ffn",
    ),
    "nan_tensor": attack(
        """
        def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD): return torch.full_like(x_TD, float("nan"))
        """,
        score=SHAPE,
        exercise="swiglu_ffn",
    ),
    "nan": attack("def ffn_params(d_model, d_ff): return float('nan')"),
    "negative": attack("def ffn_params(d_model, d_ff): return -1e308"),
    "huge": attack("def ffn_params(d_model, d_ff): return 10 ** 100_000"),
    "nested_deeply": attack(
        """
        def ffn_params(d_model, d_ff):
            inner = []
            for _ in range(100_000):
                inner = [inner]
            return inner
        """
    ),
    "contains_itself": attack(
        """
        def ffn_params(d_model, d_ff):
            loop = []
            loop.append(loop)
            return loop
        """
    ),
    "exception_in_del": attack(
        """
        class Last:
            def __del__(self): raise SystemExit("not my problem")
        def ffn_params(d_model, d_ff):
            Last()
            return 3 * d_model * d_ff
        """,
        "passed",
        RIGHT,
    ),
    "exit_in_del": attack(
        """
        import os
        class Last:
            def __del__(self): os._exit(0)
        def ffn_params(d_model, d_ff):
            Last()
            return 3 * d_model * d_ff
        """,
        "crashed",
    ),
    "exception_that_cannot_be_read": attack(
        """
        class Worse(Exception):
            def __str__(self): raise SystemExit("worse")
            __repr__ = __str__
        def ffn_params(d_model, d_ff): raise Worse
        """
    ),
    "script_in_message": attack(
        """
        def ffn_params(d_model, d_ff): raise ValueError("<script>alert(1)</script><img src=x onerror=alert(1)>")
        """
    ),
    "script_in_type": attack(
        """
        Named = type("<script>alert(1)</script>", (Exception,), {"__module__": "<script>"})
        def ffn_params(d_model, d_ff):
            if d_model == 2:
                raise Named("x")
            return Named()
        """
    ),
}

PATCHES = {
    "no_asserts": attack(
        f"""
        import ast, importlib.abc, sys
        class Strip(ast.NodeTransformer):
            def visit_Assert(self, node): return ast.Pass()
            def visit_Raise(self, node): return ast.Pass()
        compiled = compile
        def stripping(source, *args, **kwargs):
            if isinstance(source, str):
                source = ast.fix_missing_locations(Strip().visit(ast.parse(source)))
            return compiled(source, *args, **kwargs)
        import builtins
        builtins.compile = stripping
        far = ("graders", "moe_course.grading.exercises.expect")
        for name in [name for name in sys.modules if name.startswith(far)]:
            del sys.modules[name]
        {WRONG}
        """
    ),
    "settrace": attack(
        f"""
        import sys
        def rewrite(frame, event, arg):
            for name in ("got", "value", "reply"):
                if name in frame.f_locals:
                    frame.f_locals[name] = frame.f_locals.get("expected", 18)
            return rewrite
        sys.settrace(rewrite)
        {WRONG}
        """
    ),
    "patched_torch": attack(
        f"""
        import torch.testing
        yes = lambda *args, **kwargs: True
        torch.allclose = torch.equal = torch.isclose = torch.testing.assert_close = yes
        torch.Tensor.__eq__ = torch.Tensor.equal = torch.Tensor.allclose = yes
        torch.Tensor.item = lambda self: 0.0
        {WRONG_TENSOR}
        """,
        score=SHAPE,
        exercise="swiglu_ffn",
    ),
    "patched_numpy": attack(
        f"""
        import numpy
        numpy.allclose = numpy.array_equal = numpy.isclose = lambda *args, **kwargs: True
        numpy.testing.assert_allclose = lambda *args, **kwargs: None
        {WRONG_TENSOR}
        """,
        score=SHAPE,
        exercise="swiglu_ffn",
    ),
    "patched_builtins": attack(
        f"""
        import builtins
        builtins.isinstance = builtins.any = builtins.all = lambda *args: True
        builtins.abs = builtins.sum = builtins.max = lambda *args, **kwargs: 0
        {WRONG}
        """,
        "crashed",
    ),
    "patched_pytest": attack(
        f"""
        import sys, types
        fake = types.ModuleType("pytest")
        fake.raises = fake.fail = fake.approx = lambda *args, **kwargs: None
        sys.modules["pytest"] = fake
        {WRONG}
        """
    ),
    "patched_graders": attack(
        f"""
        import moe_course.grading as grading
        from moe_course.grading.exercises import expect
        for name in [name for name in vars(expect) if name.startswith("expect")]:
            setattr(expect, name, lambda *args, **kwargs: None)
        grading.check = lambda *args: 1e9
        {WRONG}
        """
    ),
    "patched_probe": attack(
        f"""
        import graders.probes
        from moe_course.grading.exercises.protocol import Outcome
        graders.probes.call = lambda *args, **kwargs: Outcome(value=float("inf"))
        {WRONG}
        """
    ),
    "patched_plain": attack(
        f"""
        from moe_course.grading.exercises import protocol
        from moe_course.grading.worker import serve
        import graders.probes
        class Evil:
            def __reduce__(self): return (print, ("evil",))
        graders.probes.plain = protocol.plain = serve.plain = lambda value, depth=0: Evil()
        {WRONG}
        """
    ),
}

FORGERIES = {
    "display": attack(
        f"""
        import sys
        from IPython.display import display
        sys.displayhook = lambda value: print("3.0")
        print("3.0"); display(3.0); 3.0
        with open("check_ffn_params.json", "w") as file:
            file.write('{{"score": 3, "max_score": 3, "status": "passed"}}')
        {WRONG}
        """
    ),
    "formatter": attack(
        f"""
        from IPython.core.formatters import DisplayFormatter, PlainTextFormatter
        DisplayFormatter.format = lambda self, *args, **kwargs: ({{"text/plain": "3.0"}}, {{}})
        PlainTextFormatter.__call__ = lambda self, value: "3.0"
        get_ipython().display_formatter.for_type(float, lambda *args: "3.0")
        {WRONG}
        """
    ),
    "redefined_check": attack(
        f"""
        def check(fn): return float("nan")
        score = max_score = points = -1
        {WRONG}
        """
    ),
    "frames": attack(
        """
        import os, pickle, struct
        def ffn_params(d_model, d_ff):
            noise = [pickle.dumps(print), struct.pack(">QQ", 1 << 60, 1 << 60), b"\\xff" * 4000]
            for descriptor in range(3, 40):
                for frame in noise:
                    try:
                        os.set_blocking(descriptor, False)
                        os.write(descriptor, frame)
                    except OSError:
                        pass
            return 3 * d_model * d_ff
        """,
        "crashed",
    ),
    "oversized_frame": attack(
        """
        import os, struct
        def ffn_params(d_model, d_ff):
            for descriptor in range(3, 40):
                try:
                    os.write(descriptor, struct.pack(">QQ", 1 << 62, 1 << 62))
                except OSError:
                    pass
            os._exit(0)
        """,
        "crashed",
    ),
    "two_replies": attack(
        """
        import os, sys
        from moe_course.grading.exercises.protocol import Outcome
        from moe_course.grading.worker.wire import encode
        def ffn_params(d_model, d_ff):
            frame = sys._getframe()
            while "replies" not in frame.f_locals:
                frame = frame.f_back
            out, number = frame.f_locals["replies"].fileno(), frame.f_locals["message"]["number"]
            for score in (float("nan"), 1e9):
                os.write(out, encode({"number": number, "value": Outcome(value=score)}))
            return 3 * d_model * d_ff
        """,
        "crashed",
    ),
    "reply_out_of_order": attack(
        """
        import os, sys
        from moe_course.grading.exercises.protocol import Outcome
        from moe_course.grading.worker.wire import encode
        def ffn_params(d_model, d_ff):
            frame = sys._getframe()
            while "replies" not in frame.f_locals:
                frame = frame.f_back
            out, number = frame.f_locals["replies"].fileno(), frame.f_locals["message"]["number"]
            os.write(out, encode({"number": number ^ 1, "value": Outcome(value=3 * d_model * d_ff)}))
            return 3 * d_model * d_ff
        """,
        "crashed",
    ),
    "a_verdict_as_reply": attack(
        """
        import os, sys
        from moe_course.grading.worker.wire import encode
        def ffn_params(d_model, d_ff):
            frame = sys._getframe()
            while "replies" not in frame.f_locals:
                frame = frame.f_back
            out, number = frame.f_locals["replies"].fileno(), frame.f_locals["message"]["number"]
            verdict = {"status": "passed", "score": 3.0, "max_score": 3.0, "exercise": "ffn_params"}
            os.write(out, encode({"number": number, "value": verdict}))
            return 0
        """,
        "crashed",
    ),
    "frames_and_gc": trick(
        """
        import gc, sys
        WANTED = {18, 231, 3 * 4096 * 14336}
        def won():
            frame, seen = sys._getframe(), []
            while frame:
                seen += [value for value in list(frame.f_locals.values()) if type(value) is int]
                frame = frame.f_back
            for thing in gc.get_objects()[:300_000]:
                if type(thing) is dict and ("expected" in thing or "oracles" in thing or "want" in thing):
                    seen.append(thing.get("expected"))
                if type(thing).__name__ in ("Criterion", "CheckFailed", "Verdict"):
                    return True
            return any(type(value) is int and value in WANTED for value in seen)
        """
    ),
    "memory_of_the_judge": trick(
        """
        import os
        def won():
            for process in os.listdir("/proc"):
                if process.isdigit() and int(process) not in (os.getpid(), 1):
                    try:
                        if b"cohort" in open(f"/proc/{process}/cmdline", "rb").read():
                            return True
                        os.kill(int(process), 0)
                    except OSError:
                        pass
            try:
                os.kill(PLACES["judge"], 0)
                return True
            except OSError:
                return False
        """
    ),
}

FILES = {
    "reads_what_is_secret": trick(
        """
        import glob, os
        def won():
            for path in PLACES["secrets"]:
                try:
                    os.listdir(path) if os.path.isdir(path) else open(path, "rb").close()
                    return True
                except OSError:
                    pass
            return False
        """
    ),
    "searches_for_graders": trick(
        """
        import os
        NAMES = {"gradebook.db", "oracles.py", "results.json", "log.jsonl", "test_01_dense_ffn.py"}
        def won():
            tops = ["/course", "/tmp", "/home", "/root", "/srv", "/mnt", "/etc", "/dev/shm"]
            found = ((folder, names) for top in tops for folder, _, names in os.walk(top))
            return any(NAMES & set(names) for folder, names in found if "site-packages" not in folder)
        """
    ),
    "environment": trick(
        """
        import os
        def won():
            texts = [repr(sorted(os.environ.items()))]
            for process in os.listdir("/proc"):
                try:
                    texts.append(open(f"/proc/{process}/environ", errors="replace").read())
                except OSError:
                    pass
            return any("swordfish" in text for text in texts)
        """
    ),
    "writes_everywhere": trick(
        """
        import os
        def won():
            for path in PLACES["targets"]:
                place = os.path.join(path, "planted_by_a_submission.txt") if os.path.isdir(path) else path
                try:
                    open(place, "ab").close()
                    return True
                except OSError:
                    pass
            return False
        """
    ),
    "symlinks": trick(
        """
        import os
        def won():
            for number, path in enumerate(PLACES["secrets"]):
                link = f"/tmp/link{number}"
                if not os.path.lexists(link):
                    os.symlink(path, link)
                if os.path.exists(link):
                    return True
            return False
        """
    ),
    "writes_to_its_own_library": trick(
        """
        import os, sys
        import graders.probes, moe_course.grading.worker.serve
        def won():
            modules = (torch, graders.probes, moe_course.grading.worker.serve, os)
            folders = [os.path.dirname(module.__file__) for module in modules]
            for place in [*(module.__file__ for module in modules), *folders]:
                try:
                    if os.path.isdir(place):
                        place = os.path.join(place, "planted_by_a_submission.txt")
                    open(place, "ab").close()
                    return True
                except OSError:
                    pass
            return False
        """
    ),
    "changes_modes_and_times": trick(
        """
        import os
        def won():
            for path in PLACES["targets"]:
                for change in (os.utime, lambda path: os.chmod(path, os.stat(path).st_mode)):
                    try:
                        change(path)
                        return True
                    except OSError:
                        pass
            return False
        """
    ),
    "planted_files": attack(
        """
        import os
        def ffn_params(d_model, d_ff):
            plant = "import os; os.environ['PLANTED'] = '1'\\ndef ffn_flops(*args): return 0\\n"
            for name in ("conftest.py", "sitecustomize.py", "usercustomize.py", "torch.py", "json.py"):
                open(name, "w").write(plant)
            open("pytest.ini", "w").write("[pytest]\\naddopts = --collect-only\\n")
            os.makedirs("moe_course/grading", exist_ok=True)
            open("moe_course/__init__.py", "w").write(plant)
            os._exit(0)
        """,
        "crashed",
        kept=("ffn_flops",),
    ),
    "planted_modules": attack(
        """
        import sys
        for name in ("conftest.py", "torch.py", "graders.py", "oracles.py", "pytest.py"):
            open(name, "w").write("raise SystemExit")
        open("pytest.ini", "w").write("[pytest]\\npython_files = none\\n")
        sys.path.insert(0, ".")
        def ffn_params(d_model, d_ff): return 0
        """
    ),
}

ENDINGS = {
    "os_exit": attack("import os\ndef ffn_params(d_model, d_ff): os._exit(0)", "crashed"),
    "os_exit_in_cell": attack(
        "import os\ndef ffn_params(d_model, d_ff): return 3 * d_model * d_ff\nos._exit(0)", "crashed"
    ),
    "quit": attack("def ffn_params(d_model, d_ff): quit()"),
    "sys_exit": attack("import sys\ndef ffn_params(d_model, d_ff): sys.exit(0)"),
    "sys_exit_in_cell": attack(
        "import sys\ndef ffn_params(d_model, d_ff): return 3 * d_model * d_ff\nsys.exit(0)", "passed", RIGHT
    ),
    "segfault": attack("import ctypes\ndef ffn_params(d_model, d_ff): return ctypes.string_at(0)", "crashed"),
    "kills_itself": attack(
        "import os, signal\ndef ffn_params(d_model, d_ff): os.kill(os.getpid(), signal.SIGKILL)", "crashed"
    ),
    "keyboard_interrupt": attack("def ffn_params(d_model, d_ff): raise KeyboardInterrupt", "crashed"),
    "recursion": attack("def ffn_params(d_model, d_ff): return ffn_params(d_model, d_ff)"),
    "keeps_others": attack(
        "import os\ndef ffn_params(d_model, d_ff): os._exit(9)", "crashed", kept=("ffn_flops",)
    ),
}

HANGING = {  # each costs the deadline that the test lowers for these alone
    "sleeps": attack("import time\ndef ffn_params(d_model, d_ff): time.sleep(60)", "timed out"),
    "swallows_every_signal": attack(
        """
        import signal, time
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                pass
        def ffn_params(d_model, d_ff):
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    while time.monotonic() < end:
                        pass
                except (KeyboardInterrupt, SystemExit):
                    continue
        """,
        "timed out",
        kept=("ffn_flops",),
    ),
}

BOMBS = {
    "fork_bomb": trick(
        """
        import os, time
        def won():
            for count in range(200):
                try:
                    if os.fork() == 0:
                        time.sleep(5)
                        os._exit(0)
                except OSError:
                    return False
            return True
        """
    ),
    "daemon": attack(
        """
        import os
        def ffn_params(d_model, d_ff):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execv("/usr/bin/sleep", ["daemon-of-a-submission", "60"])
                os._exit(0)
            return 0
        """
    ),
    "memory": attack(
        """
        import time
        def ffn_params(d_model, d_ff):
            held = [b"\\xff" * (16 << 20) for _ in range(80)]
            time.sleep(5)  # the judge looks now and then
            return 3 * d_model * d_ff * len(held) // 80
        """,
        "out of memory",
    ),
    "one_huge_allocation": attack("def ffn_params(d_model, d_ff): return len(bytearray(1 << 40))"),
    "huge_tensor": attack(
        """
        def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD): return torch.empty(1).expand(1 << 20, 1 << 20)
        """,
        exercise="swiglu_ffn",
    ),
    "disk": trick(
        """
        import os
        def won():
            return any(holds_40_mib(folder) for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run"))
        def holds_40_mib(folder):
            try:
                for number in range(10):
                    with open(f"{folder}/bomb-{number}", "wb") as file:
                        file.write(bytes(4 << 20))
                return True
            except OSError:
                return False
            finally:
                for number in range(10):
                    if os.path.exists(f"{folder}/bomb-{number}"):
                        os.unlink(f"{folder}/bomb-{number}")
        """
    ),
    "flood": attack(
        """
        import os, sys
        def ffn_params(d_model, d_ff):
            for _ in range(32):
                for descriptor in (0, 1, 2):
                    try:
                        os.write(descriptor, b"x" * (1 << 20))
                    except OSError:
                        pass
                print("y" * (1 << 20)); print("z" * (1 << 20), file=sys.stderr)
            return 3 * d_model * d_ff
        """,
        "passed",
        RIGHT,
    ),
    "threads": attack(
        """
        import threading, time
        def ffn_params(d_model, d_ff):
            for _ in range(200):
                threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
            return 3 * d_model * d_ff
        """
    ),
}

NETWORK = {
    "tcp": trick(
        """
        import socket
        def won():
            try:
                socket.create_connection(("127.0.0.1", PLACES["tcp"]), timeout=1).sendall(b"hello")
                return True
            except OSError:
                return False
        """
    ),
    "udp": attack(
        """
        import socket
        def ffn_params(d_model, d_ff):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                line.sendto(b"hello", ("127.0.0.1", PLACES["udp"]))
            return 0
        """
    ),
    "unix": trick(
        """
        import socket
        def won():
            for name in (PLACES["unix"], PLACES["abstract"]):
                try:
                    with socket.socket(socket.AF_UNIX) as line:
                        line.connect(name)
                    return True
                except OSError:
                    pass
            return False
        """
    ),
}

DOUBLE_FACED = {
    "right_only_when_graded": attack(  # full marks: what counts is what it does when graded
        """
        import sys
        def ffn_params(d_model, d_ff):
            return 3 * d_model * d_ff if "moe_course.grading.worker.serve" in sys.modules else 0
        """,
        "passed",
        RIGHT,
    ),
    "wrong_only_when_graded": attack(
        """
        import sys
        def ffn_params(d_model, d_ff):
            return 0 if "moe_course.grading.worker.serve" in sys.modules else 3 * d_model * d_ff
        """
    ),
    "the_documented_example": attack("def ffn_params(d_model, d_ff): return 18"),
    "the_examples_by_heart": attack(
        """
        def ffn_params(d_model, d_ff): return {(2, 3): 18, (1024, 4096): 12582912}.get((d_model, d_ff))
        """
    ),
    "the_graders_sizes_by_heart": attack(
        """
        SIZES = [(2, 3), (7, 11), (4096, 14336), (2147483649, 536870919)]
        COUNTS = [18, 231, 176160768, 3458764560528310293]
        def ffn_params(d_model, d_ff): return dict(zip(SIZES, COUNTS)).get((d_model, d_ff), 0)
        """
    ),
}

LIBRARY = {
    "imports_the_answer": attack(
        """
        from moe_course.systems.accounting import ffn_params as theirs
        def ffn_params(d_model, d_ff): return theirs(d_model, d_ff)
        """,
        "forbidden",
    ),
    "imports_it_later": attack(
        """
        import importlib
        def ffn_params(d_model, d_ff):
            try:
                return importlib.import_module("moe_course.systems.accounting").ffn_params(d_model, d_ff)
            except ImportError:
                return 0
        """
    ),
    "removes_the_mask": attack(
        """
        import sys
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "Mask"]
        def ffn_params(d_model, d_ff):
            import moe_course.systems.accounting as answers
            return answers.ffn_params(d_model, d_ff)
        """
    ),
    "asks_for_the_working_one": attack(
        """
        from moe_course.lesson import working
        def ffn_params(d_model, d_ff): return 0
        mine = ffn_params
        def ffn_params(d_model, d_ff): return working(mine)(d_model, d_ff)
        """,
        "forbidden",
    ),
    "reads_its_source": trick(
        """
        import importlib.util, os, sys
        def won():
            places = [*sys.path, "/course", PLACES["root"]]
            for place in places:
                path = os.path.join(place, "moe_course", "systems", "accounting.py")
                if os.path.exists(path) or os.path.exists(path + "c"):
                    return True
            return False
        """
    ),
    "calls_it_through_another_module": trick(
        """
        import sys
        def won():
            import moe_course.lesson, moe_course.viz
            for name, module in list(sys.modules.items()):
                if name.startswith("moe_course") and "ffn_params" in vars(module):
                    return True
            return False
        """
    ),
}

ATTACKS = {
    **OBJECTS,
    **PATCHES,
    **FORGERIES,
    **FILES,
    **ENDINGS,
    **HANGING,
    **BOMBS,
    **NETWORK,
    **DOUBLE_FACED,
    **LIBRARY,
}

HONEST = {  # what replaces cells of a solved notebook, by cell; all of it earns full marks
    "warnings_and_progress": {
        "ffn_params": """
            import sys, warnings
            from tqdm import tqdm
            def ffn_params(d_model, d_ff):
                warnings.warn("slow on purpose")
                for _ in tqdm(range(3)):
                    print("counting", file=sys.stderr)
                print("three matrices")
                return 3 * d_model * d_ff
        """
    },
    "helpers_across_cells": {
        "s1-shapes": "def matrices(): return 3",
        "s1-tokens-alone": "def product(*sizes):\n    return sizes[0] * product(*sizes[1:]) if sizes else 1",
        "ffn_params": "def ffn_params(d_model, d_ff):\n    return product(matrices(), d_model, d_ff)",
    },
    "reordered_imports": {
        "setup": """
            from moe_course.lesson import check, working, reveal, predict
            from moe_course.published import PRESETS
            from moe_course.config import ModelConfig
            import math
            import torch.nn.functional as F
            from moe_course import viz
            import torch
        """,
    },
    "float64_inside": {
        "swiglu_ffn": """
            def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD):
                x, gate, up, down = (t.double() for t in (x_TD, w_gate_DF, w_up_DF, w_down_FD))
                return ((F.silu(x @ gate) * (x @ up)) @ down).to(x_TD.dtype)
        """
    },
    "another_algorithm": {
        "swiglu_ffn": """
            def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD):
                gate_TF = torch.einsum("td,df->tf", x_TD, w_gate_DF)
                up_TF = torch.einsum("td,df->tf", x_TD, w_up_DF)
                return torch.einsum("tf,fd->td", gate_TF * torch.sigmoid(gate_TF) * up_TF, w_down_FD)
        """,
        "ffn_params": "def ffn_params(d_model, d_ff):\n    return sum(d_model * d_ff for _ in range(3))",
    },
    "module_level_state": {
        "ffn_params": """
            CALLS, KNOWN = [], {}
            def ffn_params(d_model, d_ff):
                CALLS.append((d_model, d_ff))
                return KNOWN.setdefault((d_model, d_ff), 3 * d_model * d_ff)
        """
    },
    "type_hints": {
        "ffn_params": """
            from __future__ import annotations
            from typing import NewType
            Width = NewType("Width", int)
            def ffn_params(d_model: Width, d_ff: Width) -> int:
                total: int = 3 * d_model * d_ff
                return total
        """
    },
    "callable_instance": {
        "ffn_params": """
            class Count:
                def __init__(self, matrices): self.matrices = matrices
                def __call__(self, d_model, d_ff): return self.matrices * d_model * d_ff
            ffn_params = Count(3)
        """
    },
    "a_lambda": {"ffn_params": "ffn_params = lambda d_model, d_ff: 3 * d_model * d_ff"},
    "a_cached_function": {
        "ffn_params": """
            import functools
            @functools.lru_cache
            def ffn_params(d_model, d_ff):
                return 3 * d_model * d_ff
        """
    },
    "cells_that_fail": {
        "s1-shapes": "1 / 0",
        "s4-table": "this is no Python",
        "s1-activation": "%matplotlib inline\n!ls\nx = !pwd",
    },
}
HONEST = {
    name: {cell: textwrap.dedent(source).strip() for cell, source in cells.items()}
    for name, cells in HONEST.items()
}
