"""What probes stand on, as it was before a submission's first cell.

A submission shares its process with the probes, and can rewrite everything that they use: torch's functions, Python's
own, the probes themselves, this module, and the code inside any function. The worker therefore remembers all that
before it runs a cell. A probe runs on what was remembered, and calls the learner's code through `theirs`, which meets
the world that the submission has made:

    value = theirs(namespace["top_k_gate"], probs_TE, 2)

Where the learner's code calls back, as a block calls its feed-forward layer, `ours` returns to what was remembered.
In a learner's own kernel nothing was remembered, and both only call.

What was remembered is made of tuples, and functions that are running hold it in their local variables: a submission
can find it there, and not change it. If anything changes while no code of the learner's should run (by a thread of
theirs, or a property of what they returned), the reply is dropped.

This stops forged measurements, not forged replies: a submission that takes over the process can send what it likes.
So a criterion asks for values that the judge can verify, and what only the worker can know earns nothing alone.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Memory = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]

SHARED = ("exercises.protocol", "worker.wire", "worker.serve", "worker.pristine", "worker.ranks")
OTHERS = (  # what those modules, and the probes, look up in Python and in PyTorch
    *("contextlib", "dataclasses", "functools", "gc", "importlib", "json", "json.decoder", "json.encoder"),
    *(
        "linecache",
        "math",
        "random",
        "struct",
        "traceback",
        "numpy",
        "numpy.random",
        "torch",
        "torch.autograd",
    ),
    *("torch.autograd.graph", "torch.nn", "torch.nn.functional", "torch.optim", "torch.overrides"),
    *("torch.random", "torch.testing", "torch.utils._python_dispatch", "torch.utils.checkpoint"),
)

_world: list[Any] = [
    (),
    (),
]  # what is remembered, and what the submission has made of it since; empty in a kernel


class Disturbed(RuntimeError):
    """Something changed what a probe stands on, while the probe ran."""


def remembered_probes() -> tuple[tuple[tuple[str, Callable[..., Any]], ...], Memory]:
    """Every probe with its name "module:name", and all that they use. To be called before a cell runs."""
    try:
        package = importlib.import_module("graders.probes")
    except ImportError:  # where no graders are installed, no probe will be asked for
        probes = []
    else:
        names = [f"graders.probes.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
        probes = [package, *map(importlib.import_module, names)]
    memory = _remember([*probes, *(importlib.import_module(f"moe_course.grading.{name}") for name in SHARED)])
    found = (
        (f"{module.__name__}:{name}", value)
        for module in probes
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    )
    return tuple(found), memory


def _remember(own: Iterable[ModuleType]) -> Memory:
    """(holders, functions, tools): what `restore` puts back, and what it works with, since it may look up no name.

    holders: (class or None, its names as they are at any time, the names it should have, names and values). Of the
    course's own modules and of classes every name is known; elsewhere more names may come, as modules load late.
    functions: (function, code, defaults, keyword defaults, cells and their contents).
    """
    import torch

    own, others = tuple(own), [builtins, *map(importlib.import_module, OTHERS)]
    classes = [torch.Tensor, torch.nn.Parameter, torch.nn.Module, torch.nn.Linear, torch.no_grad]
    classes += [torch.autograd.Function, torch.optim.Optimizer, torch.optim.SGD, torch.optim.Adam]
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        optimizer([torch.zeros(1)])  # the first one that is made changes its class
    for module in own:
        vars(module).setdefault("__warningregistry__", {})  # the first warning would add it
        mine = [
            value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__
        ]
        classes += [value for value in mine if isinstance(value, type)]
    everywhere = tuple((module.__name__, module) for module in (*own, *others))
    holders: list[tuple[Any, ...]] = [
        (cls, vars(cls), frozenset(vars(cls)), tuple(vars(cls).items())) for cls in classes
    ]
    holders += [(None, vars(module), frozenset(vars(module)), tuple(vars(module).items())) for module in own]
    holders += [(None, vars(module), None, tuple(vars(module).items())) for module in others]
    holders += [(None, sys.modules, None, everywhere)]
    functions: dict[FunctionType, tuple[Any, ...]] = {}
    for holder in (*own, *classes, torch.random, torch.autograd):
        for value in vars(holder).values():
            _note(value, functions)
    function_modes = (
        "_len_torch_function_stack",
        "_pop_torch_function_stack",
        "_push_on_torch_function_stack",
    )
    dispatch_modes = (
        "_len_torch_dispatch_stack",
        "_pop_torch_dispatch_stack",
        "_push_on_torch_dispatch_stack",
    )
    stacks = tuple(tuple(getattr(torch._C, n) for n in names) for names in (function_modes, dispatch_modes))
    tools = (type.__setattr__, type.__delattr__, sys.settrace, sys.setprofile, stacks, _world)
    return tuple(holders), tuple(functions.values()), tools


def _note(value: Any, functions: dict[FunctionType, tuple[Any, ...]]) -> None:
    """Note a function, and those that it wraps."""
    function = getattr(value, "__func__", value)  # of a class method or a static one
    if not isinstance(function, FunctionType) or function in functions:
        return
    cells = tuple((cell, cell.cell_contents) for cell in function.__closure__ or ())
    keywords = tuple((function.__kwdefaults__ or {}).items())
    functions[function] = (function, function.__code__, function.__defaults__, keywords, cells)
    for _, contents in cells:
        _note(contents, functions)


def restore(memory: Memory) -> None:
    """Put back what was remembered, and keep in `_world` what the submission had made of it.

    It looks up no name, and its caller first gives it its own code back: `again.__code__ = code`.
    """
    holders, functions, (set_on, delete_from, settrace, setprofile, stacks, world) = memory
    settrace(None)
    setprofile(None)
    modes: list[Any] = []
    for length, pop, push in stacks:  # modes of PyTorch see and change whatever it computes
        while length():
            modes.append((push, pop()))
    for function, code, defaults, keywords, cells in functions:
        if function.__code__ is not code:
            function.__code__ = code
        function.__defaults__ = defaults
        function.__kwdefaults__ = {name: value for name, value in keywords} or None  # noqa: C416 (`dict` is a name)
        for cell, contents in cells:
            cell.cell_contents = contents
    changes: list[Any] = []
    for cls, names, known, right in holders:
        wrong = [(name, value) for name, value in right if name not in names or names[name] is not value]
        added = [name for name in names if name not in known] if known else []
        if not wrong and not added:
            continue
        made = [(name, names[name]) for name, _ in wrong if name in names]
        made += [(name, names[name]) for name in added]
        changes.append((cls, names, made, [name for name, _ in wrong if name not in names]))
        for name in added:
            if cls:
                delete_from(cls, name)
            else:
                del names[name]
        for name, value in wrong:
            if cls:
                set_on(cls, name, value)
            else:
                names[name] = value
    world[:] = memory, (changes, modes)


def release() -> None:
    """Put back what the submission had made of it."""
    if not _world[1]:
        return
    (_, _, (set_on, delete_from, *_)), (changes, modes) = _world
    for cls, names, made, removed in changes:
        for name in removed:
            if cls:
                delete_from(cls, name)
            else:
                names.pop(name, None)
        for name, value in made:
            if cls:
                set_on(cls, name, value)
            else:
                names[name] = value
    for push, mode in reversed(modes):
        push(mode)


def intact(memory: Memory) -> bool:
    """Whether everything is as it was remembered."""
    holders, functions, _ = memory
    return all(function.__code__ is code for function, code, *_ in functions) and all(
        all(name in names and names[name] is value for name, value in right)
        and not (known and names.keys() - known)
        for _, names, known, right in holders
    )


def theirs(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the learner's code from a probe."""
    memory = _world[0]
    if not memory:
        return function(*args, **kwargs)
    if not intact(memory):
        raise Disturbed
    again, code = restore, restore.__code__
    release()
    try:
        return function(*args, **kwargs)
    finally:
        again.__code__ = code
        again(memory)


def ours(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that the learner's code calls run on what was remembered."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        memory = _world[0]
        if not memory:
            return function(*args, **kwargs)
        restore(memory)
        try:
            return function(*args, **kwargs)
        finally:
            release()

    return call
