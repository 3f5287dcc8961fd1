"""What probes stand on, as it was before a submission's first cell.

A submission shares its process with the probes, and can rewrite everything that they use: torch's functions, Python's
own, the probes themselves. The worker therefore remembers all that before it runs a cell. A probe runs on what was
remembered, and calls the learner's code through `theirs`, which meets the world that the submission has made:

    value = theirs(namespace["top_k_gate"], probs_TE, 2)

Where the learner's code calls back, as a block calls its feed-forward layer, `ours` returns to what was remembered.
In a learner's own kernel nothing was remembered, and both only call.

This stops forged measurements, not forged replies: a submission that takes over the process can send what it likes.
So a criterion asks for values that the judge can verify, and what only the worker can know earns nothing alone.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import gc
import importlib
import pkgutil
import random
import sys
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Holder:
    """A module or a class: its names as they were, and what the submission has made of them since.

    sealed: names that were added are taken away as well; those of a large package may be modules that loaded late.
    """

    def __init__(self, owner: Any, sealed: bool):
        self.owner, self.sealed = owner, sealed
        self.names = {**vars(owner)}
        self.print = _print(owner)
        self.theirs: dict[str, Any] = {}
        self.removed: list[str] = []


_holders: list[_Holder] = []
_functions: list[tuple[FunctionType, tuple[Any, ...]]] = []


def _print(owner: Any, *, map: Any = map, list: Any = list, id: Any = id, vars: Any = vars) -> Any:
    """Tells whether a name or a value has changed."""
    now = vars(owner)
    return list(now), list(map(id, now.values()))


def remember(modules: Iterable[ModuleType]) -> None:
    """Remember these modules whole, and what probes use of Python and torch. To be called before a cell runs."""
    import numpy as np
    import torch

    own = [*modules, sys.modules[__name__]]
    classes = [torch.Tensor, torch.nn.Parameter, torch.nn.Module, torch.nn.Linear]
    classes += [torch.optim.Optimizer, torch.optim.SGD, torch.optim.Adam]
    for module in own:
        members = [
            value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__
        ]
        classes += [value for value in members if isinstance(value, type)]
        _functions.extend((value, _code(value)) for value in members if isinstance(value, FunctionType))
    others = [
        builtins,
        sys,
        random,
        importlib,
        gc,
        torch,
        torch.autograd,
        torch.random,
        torch.nn,
        torch.nn.functional,
    ]
    others += [torch.optim, torch.testing, np, np.random]
    _holders.extend(_Holder(owner, sealed=True) for owner in (*own, *classes))
    _holders.extend(_Holder(owner, sealed=False) for owner in others)


def _code(function: FunctionType) -> tuple[Any, ...]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def restore(
    *,
    vars: Any = vars,
    setattr: Any = setattr,
    delattr: Any = delattr,
    settrace: Any = sys.settrace,
    setprofile: Any = sys.setprofile,
    print_of: Any = _print,
    holders: Any = _holders,
    functions: Any = _functions,
) -> None:
    """Put back what was remembered, and keep what the submission had made of it. Its names are bound beforehand."""
    settrace(None)
    setprofile(None)
    for function, (code, defaults, keywords) in functions:
        if function.__code__ is not code:
            function.__code__ = code
        function.__defaults__, function.__kwdefaults__ = defaults, keywords
    for holder in holders:
        holder.theirs, holder.removed = {}, []
        if print_of(holder.owner) == holder.print:
            continue
        now, right = {**vars(holder.owner)}, holder.names
        holder.removed = [name for name in right if name not in now]
        changed = [name for name in now if name in right and now[name] is not right[name]]
        added = [name for name in now if name not in right and holder.sealed]
        holder.theirs = {name: now[name] for name in (*changed, *added)}
        for name in added:
            delattr(holder.owner, name)
        for name in (*changed, *holder.removed):
            setattr(holder.owner, name, right[name])
        holder.print = print_of(holder.owner)


def _release() -> None:
    """Put back what the submission had made of it."""
    for holder in _holders:
        for name in holder.removed:
            with contextlib.suppress(AttributeError):
                delattr(holder.owner, name)
        for name, value in holder.theirs.items():
            setattr(holder.owner, name, value)


def theirs(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the learner's code from a probe."""
    if not _holders:
        return function(*args, **kwargs)
    back = restore
    _release()
    try:
        return function(*args, **kwargs)
    finally:
        back()


def ours(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that the learner's code calls run on what was remembered."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _holders:
            return function(*args, **kwargs)
        restore()
        try:
            return function(*args, **kwargs)
        finally:
            _release()

    return call


def remembered_probes() -> dict[str, Callable[..., Any]]:
    """Every probe by "module:name", from modules that no submission has seen yet; all that they use is remembered."""
    try:
        package = importlib.import_module("graders.probes")
    except ImportError:  # where no graders are installed, no probe will be asked for
        return {}
    modules = [package]
    modules += [
        importlib.import_module(f"graders.probes.{m.name}") for m in pkgutil.iter_modules(package.__path__)
    ]
    shared = ("exercises.protocol", "worker.wire", "worker.serve")
    remember([*modules, *(importlib.import_module(f"moe_course.grading.{name}") for name in shared)])
    return {
        f"{module.__name__}:{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }
