"""The learner's notebook in a worker: IPython's own shell, so that a cell means here what it means in Jupyter.

Magics, `!commands`, top-level `await`, `display`, `In` and `Out`, and a real `__main__` module all come from IPython.
These things differ from a kernel:

- an error does not end its cell: see `Notebook.run_code`;
- nothing is drawn and no traceback is formatted, because nobody would see it;
- programs that install software do nothing: a submission has no network;
- `input()` gets an empty answer, since nobody is there to type one.
"""

from __future__ import annotations

import builtins
import dis
import re
import shlex
import subprocess
from collections.abc import Mapping
from types import CodeType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import LSString, SList
from traitlets.config import Config

from moe_course.grading.exercises.protocol import ForbiddenImport, Raised, raised

COMMAND_SECONDS = 10.0
INSTALLERS = {"apt", "apt-get", "brew", "conda", "mamba", "micromamba", "pip", "pip3", "poetry", "uv"}
BODY_MAGICS = ("time", "prun")  # as cell magics, they run the cell below them and measure it


class Forbidden:
    """Stands for a name that a forbidden import would have defined: any use of it raises the same error."""

    def __init__(self, message: str):
        self._message = message

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ForbiddenImport(self._message)

    def __getattr__(self, name: str) -> Any:
        raise ForbiddenImport(self._message)


class Missing:
    """Stands for a name whose statement failed: calling it says what went wrong there."""

    def __init__(self, name: str, why: str):
        self._why = f"{name} is not defined: its cell stopped with {why}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NameError(self._why)


class Notebook(InteractiveShell):
    """A shell without history file, profile, tracebacks or figures. `run` runs one cell."""

    def __init__(self, **options: Any):
        config = Config()
        config.HistoryManager.enabled, config.HistoryManager.hist_file = False, ":memory:"
        config.IPKernelApp.name = "moe-course"  # a common way for code to find out that it runs in a notebook
        self.failure: Raised | None = None  # the first error of the cell that runs
        self._bound: set[str] = set()  # the names that were bound when it happened
        super().__init__(config=config, **options)
        assert self.display_formatter is not None
        self.display_formatter.active_types = ["text/plain"]
        for name in sorted(INSTALLERS):
            self.magics_manager.register_function(lambda line: None, "line", name)
        for name in BODY_MAGICS:
            self.magics_manager.register_function(lambda line, cell: self._run_body(cell), "cell", name)
        builtins.input = lambda prompt="": ""

    def run(self, source: str) -> Raised | None:
        """Run one cell; returns its first error. Names that it was to define and did not get stand-ins."""
        self.failure = None
        result = self.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if error is not None and self.failure is None:  # the cell never began, as after a syntax error
            self.failure = raised(error)
            self.lose(source, self.failure)
        return self.failure

    def lose(self, source: str, why: Raised | str) -> None:
        """Let stand-ins answer for the names that a cell which did not run would have defined."""
        self._stand_in(re.findall(r"^(?:async\s+def|def|class)\s+(\w+)", source, re.MULTILINE), why)

    async def run_code(self, code_obj: CodeType, result: Any = None, *, async_: bool = False) -> bool:
        """Run one statement of a cell; IPython calls this for each. An error does not stop the statements after it.

        A kernel stops there. In grading, the error may be one that the learner never saw, say because a variable of
        a demonstration is not there, and helpers defined below it must not be lost. So the statements after an error
        run if they bind a new name, and what was bound before the error keeps its value: old code that somebody
        parked below a `raise` replaces no answer.
        """
        names = _assigned(code_obj)
        kept: dict[str, Any] = {}
        if self.failure is not None:
            if names <= self._bound:
                return False
            kept = {name: self.user_ns[name] for name in names & self._bound if name in self.user_ns}
        own = _Result()
        try:
            await super().run_code(code_obj, own, async_=async_)
        except BaseException as error:  # IPython warns of a SystemExit, and a warning may be an error
            own.error_in_exec = own.error_in_exec or error
        self.user_ns.update(kept)
        if own.error_in_exec is not None:
            described = raised(own.error_in_exec)
            if self.failure is None:
                self.failure = described
                stand_ins = (Forbidden, Missing)
                self._bound = {name for name, value in self.user_ns.items() if type(value) not in stand_ins}
            self._stand_in(names, described)
        return False

    def _stand_in(self, names: Any, why: Raised | str) -> None:
        for name in names:
            if isinstance(why, Raised) and why.type_name == ForbiddenImport.__name__:
                self.user_ns.setdefault(name, Forbidden(why.message))
            else:
                text = f"{why.type_name}: {why.message}" if isinstance(why, Raised) else why
                self.user_ns.setdefault(name, Missing(name, text))

    def _run_body(self, cell: str) -> None:
        self.run_cell(cell)

    # ---------------------------------------------------------------------------- what a kernel does elsewhere

    def ask_exit(self) -> None:
        """`exit()` in a notebook ends no cell."""

    def enable_gui(self, gui: Any = None) -> None:
        """There is no window."""

    def enable_matplotlib(self, gui: Any = None) -> tuple[Any, str]:
        """`%matplotlib`: whatever is asked for, figures are not drawn."""
        return gui, "inline"

    def system(self, cmd: str) -> None:
        """`!command`"""
        _, self.user_ns["_exit_code"] = run_command(self.var_expand(cmd, depth=1))

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """`lines = !command`"""
        text, self.user_ns["_exit_code"] = run_command(self.var_expand(cmd, depth=depth + 1))
        return SList(text.splitlines()) if split else LSString(text)

    # ------------------------------------------------------------------------------------ what nobody would see

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        """No folder for settings: nothing is read from the user's, and none is made."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """No profile."""

    def init_virtualenv(self) -> None:
        """The worker has its import path already."""

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Nobody would read it."""

    showsyntaxerror = showindentationerror = showtraceback

    def _format_exception_for_storage(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        return {}


class _Result:
    """Where IPython puts the error of one statement."""

    error_in_exec: BaseException | None = None


Notebook.__name__ = "ZMQInteractiveShell"  # what get_ipython().__class__.__name__ is in Jupyter


def run_command(command: str) -> tuple[str, int]:
    """The output and exit code of a shell command. One that installs software is not run, and counts as done."""
    try:
        words = set(shlex.split(command, comments=True))
    except ValueError:  # quotes that do not match: the shell will say so
        words = set()
    if words & INSTALLERS:
        return "", 0
    try:
        ended = subprocess.run(
            command, shell=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), 1
    return ended.stdout.decode("utf-8", "replace"), ended.returncode


def _assigned(code: CodeType) -> set[str]:
    """The names that a statement binds at the top level."""
    return {
        step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")
    }
