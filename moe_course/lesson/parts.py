"""The learner's own functions: the code of passed exercises, stored in the work folder and loaded again.

work/.moe-course/parts/<exercise>.py holds an exercise as it last passed, with what it uses from the notebook
around it: imports, constants, and helper functions. Each file is plain Python that a learner can read.
"""

from __future__ import annotations
import __future__

import builtins
import contextlib
import dis
import inspect
import math
import os
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from moe_course import files
from moe_course.lesson import home

FOLDER = "parts"
_FLAGS = __future__.annotations.compiler_flag  # annotations stay text: they may name anything


def collected(sources: Mapping[str, str], namespace: Mapping[str, Any], parts: set[str]) -> str | None:
    """The code of an exercise with the helpers that it uses; None where it cannot be collected.

    sources: its source by name. namespace: that of the notebook, in which its helpers are found. parts: the names of
    all exercises; they are not copied as helpers, since each has its own file.
    """
    helpers: dict[str, str] = {}
    try:
        for source in sources.values():
            _collect(source, namespace, parts | set(sources), helpers)
    except (OSError, SyntaxError):  # the second for what only IPython understands
        return None
    first = sorted(helpers.values(), key=lambda text: not text.startswith(("import ", "from ")))
    return "\n\n".join(part.strip() for part in (*first, *sources.values())) + "\n" if sources else None


def keep(exercise: str, code: str) -> None:
    """Store the code of an exercise that passed. If it cannot be written, nothing happens.

    Does nothing outside a work folder and while nbgrader runs the notebook.
    """
    if folder := _folder():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(folder / f"{exercise}.py", code)


def drop(exercise: str, code: str) -> None:
    """The very code that is stored has failed a check: it is no part any more, and stays beside the others."""
    if kept(exercise) == code and (folder := _folder()):
        with contextlib.suppress(OSError):
            (folder / f"{exercise}.py").replace(folder / f"{exercise}.failed")


def kept(exercise: str) -> str | None:
    """The code that is stored of an exercise, or None."""
    folder = _folder()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (folder / f"{exercise}.py").read_text(encoding="utf-8") if folder else None
    return None


def load(source: str, names: tuple[str, ...], other_part: Callable[[str], Any]) -> dict[str, Any]:
    """The parts `names` of an exercise, from the code that was collected.

    other_part: returns another part that the code uses, by its name, and raises KeyError if that is no part. If the
    code itself is wrong, its error is raised, of whatever type.
    """
    namespace = _stage()
    defined = set(_names(source, "STORE_NAME", "IMPORT_NAME"))
    for name in sorted(names_used(source) - defined - namespace.keys() - set(dir(builtins))):
        try:
            namespace[name] = other_part(name)
        except KeyError:
            raise NameError(f"it uses {name}, which was not kept") from None
    exec(compile(source, "<your own part>", "exec", flags=_FLAGS, dont_inherit=True), namespace)
    return {name: namespace[name] for name in names}


def names_used(source: str) -> set[str]:
    """The global names that a piece of code looks up, at its top level or inside its functions."""
    return set(_names(source, "LOAD_GLOBAL", "LOAD_NAME"))


def _folder() -> Path | None:
    state = home.state_dir()
    return None if state is None or "NBGRADER_EXECUTION" in os.environ else state / FOLDER


def _stage() -> dict[str, Any]:
    """The names that code may use without importing them, as in the set-up cells."""
    import torch
    import torch.nn.functional as F

    return {
        "__name__": "own_parts",
        "torch": torch,
        "F": F,
        "nn": torch.nn,
        "Tensor": torch.Tensor,
        "math": math,
    }


def _collect(source: str, namespace: Mapping[str, Any], known: set[str], found: dict[str, str]) -> None:
    """Add to `found` the definition of everything in the notebook that the source uses, and what that uses."""
    for name in sorted(names_used(source) & namespace.keys() - known - found.keys() - set(dir(builtins))):
        text = _definition(name, namespace[name])
        if text is not None:
            found[name] = ""  # holds the place while the definitions that it uses are collected
            _collect(text, namespace, known, found)
            del found[name]
            found[name] = text


def _definition(name: str, value: Any) -> str | None:
    """Code that defines `name` as `value` in a fresh file: an import, a literal or a copy of its source."""
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__}" + ("" if name == value.__name__ else f" as {name}")
    if isinstance(value, bool | int | float | str | None):
        return f"{name} = {value!r}"
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if own and getattr(sys.modules.get(module or ""), own, None) is value and module != "__main__":
        return f"from {module} import {own} as {name}"
    with contextlib.suppress(OSError, TypeError):
        return textwrap.dedent(inspect.getsource(value))
    return None


def _names(source: str, *operations: str) -> Iterator[str]:
    """The names that these bytecode operations have as arguments, in the code and every function inside it."""
    codes: list[types.CodeType] = [compile(source, "<part>", "exec", flags=_FLAGS, dont_inherit=True)]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        yield from (step.argval for step in dis.get_instructions(code) if step.opname in operations)
