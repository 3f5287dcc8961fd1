"""Which callables of the course's library answer an exercise although its notebook's masks are up.

    python answer_sheets.py [--unmasked] [--without-ranks] [EXERCISE...]

It prints a line of JSON for each exercise: {exercise: [[callable, how it is called, score, full marks]]}. With
--without-ranks it leaves out what is graded on several processes: that takes minutes each.

Every callable that a worker can import is tried as the answer: functions, classes, and methods on an object that is
nothing but the arguments. The library's own version is graded first, and some of its calls are remembered. Then each
candidate is called with these arguments (in other orders, without the last ones, with an axis more), and what comes
back is searched for the right values: the result, its parts, its attributes. What finds them is then graded as the
answer.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import json
import os
import random
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed
from matplotlib.figure import Figure
from torch import nn

from moe_course.grading.exercises.locate import make_graders_importable
from moe_course.grading.exercises.registry import EXERCISES, exercises_of
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.worker.mounts import COURSE, course_files
from moe_course.grading.worker.sandbox import masked_modules
from moe_course.grading.worker.serve import Mask

SEED = 11
CALLS = 2  # remembered calls of the library that a candidate is tried with
SECONDS = 0.5  # for one call of a candidate
MEMORY = 4 << 30  # bytes of addresses: some take a size for a number of tokens

make_graders_importable()


# ------------------------------------------------------------------------------------------ the right answers


def library_parts(name: str) -> dict[str, Any]:
    """The library's version of each part of an exercise."""
    library = importlib.import_module(EXERCISES[name].library)
    return {part: getattr(library, part) for part in EXERCISES[name].parts}


def remembered(name: str) -> list[tuple[tuple[Any, ...], Any]]:
    """Some calls that the grader makes of the library's version: arguments and result, the telling ones last."""
    parts, calls = library_parts(name), []
    function = parts[name]

    def watched(*args: Any, **kwargs: Any) -> Any:
        before = [_copy(arg) for arg in args]
        result = function(*args, **kwargs)
        if not kwargs:
            calls.append((tuple(before), _copy(result)))
        return result

    assert grade(name, LiveSubject(parts | {name: watched}), SEED).status == "passed"
    if not calls:  # they were made on ranks, in processes of their own
        return []
    sized = sorted(
        calls, key=lambda call: sum(x.numel() for x in _leaves(call[1]) if isinstance(x, torch.Tensor))
    )
    return [sized[len(sized) // 2], sized[-1], sized[len(sized) // 4]][:CALLS]


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.clone_state()
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, tuple | list) else [value]


# ---------------------------------------------------------------------------------------------- candidates


def candidates(notebook: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Everything callable that can be imported in a worker of this notebook, once each, with its name."""
    seen: set[int] = set()
    for module in importable(notebook):
        for name, member in list(vars(module).items()):
            home = str(getattr(member, "__module__", ""))
            if (
                home.startswith("moe_course.grading")
                or not callable(member)
                or id(member) in seen
                or not home.startswith("moe_course")
            ):
                continue
            seen.add(id(member))
            yield f"{module.__name__}.{name}", member
            for inner, method in list(vars(member).items()) if inspect.isclass(member) else ():
                function = inspect.unwrap(
                    getattr(method, "fget", None) or getattr(method, "__func__", method)
                )
                if inspect.isfunction(function) and not inner.startswith("__"):
                    yield f"{module.__name__}.{name}.{inner}", _method(function)


def importable(notebook: str) -> Iterator[Any]:
    """The course's modules that load behind the masks of this notebook."""
    for path, place in course_files(masked_modules(notebook)):
        if path.suffix == ".py" and path.stem != "__main__" and place.is_relative_to(f"{COURSE}/moe_course"):
            name = ".".join(place.relative_to(COURSE).with_suffix("").parts).removesuffix(".__init__")
            if name.startswith("moe_course.grading"):
                continue  # it knows no answer, and has functions that end the process or give up its rights
            with contextlib.suppress(ImportError, SystemExit):
                yield importlib.import_module(name)


class _Given:
    """An object whose every attribute is the same value: what a method finds in `self`."""

    def __init__(self, value: Any):
        self._value = value

    def __getattr__(self, name: str) -> Any:
        return object.__getattribute__(self, "_value")


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method as a function of what `self` holds and of its other arguments."""
    return lambda first, *rest: function(_Given(first), *rest)


def arguments(args: tuple[Any, ...]) -> Iterator[tuple[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]]:
    """Ways to hand over the same arguments, each with a name."""
    count = len(args)
    orders = list(itertools.permutations(range(count))) if count <= 3 else [tuple(range(count))]
    orders += [tuple(range(kept)) for kept in range(1, count)] + [
        tuple(range(kept, count)) for kept in range(1, count)
    ]
    for order in dict.fromkeys(orders):
        yield f"arguments {order}", lambda given, order=order: tuple(given[n] for n in order)
    if isinstance(args[0], torch.Tensor) and args[0].dim() == 2:
        yield "no biases", lambda given: (given[0], given[0].new_zeros(given[0].shape[1]), *given[1:])
        yield "one group", lambda given: (given[0], given[0].new_zeros(given[0].shape[1]), 1, 1, *given[1:])
        yield (
            "one label",
            lambda given: (given[0], torch.zeros(len(given[0]), dtype=torch.long), 1, *given[1:]),
        )
    yield "one axis more", lambda given: tuple(x[None] if isinstance(x, torch.Tensor) else x for x in given)


def finds(value: Any, depth: int = 0) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Where in a result an answer can be: the result itself, its parts and its attributes."""
    yield "", lambda found: found
    if depth == 2:
        return
    inside: list[tuple[str, Callable[[Any], Any]]] = []
    if isinstance(value, tuple | list) and len(value) < 9:
        inside += [(f"[{n}]", lambda found, n=n: found[n]) for n in range(len(value))]
    elif isinstance(value, dict):
        inside += [(f"[{key!r}]", lambda found, key=key: found[key]) for key in list(value)[:20]]
    elif isinstance(value, torch.Tensor):
        if value.dim() and value.shape[0] == 1:
            inside.append(("[0]", lambda found: found[0]))
        if not value.dim():
            inside.append((".item()", lambda found: found.item()))
        elif depth < 2 and not value.is_complex():
            inside.append((" as shares", lambda found: found.double().div(found.double().sum()).float()))
    elif not isinstance(value, int | float | str | bool | None):
        names = {
            *getattr(value, "__dict__", {}),
            *(n for n, m in vars(type(value)).items() if isinstance(m, property)),
        }
        inside += [(f".{name}", lambda found, name=name: getattr(found, name)) for name in sorted(names)[:40]]
    for where, take in inside:
        with contextlib.suppress(Exception):
            part = take(value)
            for deeper, again in finds(part, depth + 1):
                yield where + deeper, lambda found, take=take, again=again: again(take(found))


def adapters(candidate: Callable[..., Any], calls: list[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The ways in which a candidate gives the right answer to one of the calls. If it is slow twice, none."""
    slow = 0
    for args, want in calls:
        for handed, arrange in arguments(args):
            arranged = arrange(tuple(map(_copy, args)))
            if not _takes(candidate, len(arranged)):
                continue
            try:
                with mock.patch.object(os, "fork", _no_fork):
                    found = _within(SECONDS, candidate, *arranged)
            except TimeoutError:
                slow += 1
                if slow == 2:
                    return
                continue
            except Exception:
                continue
            parts = want if isinstance(want, tuple) else (want,)
            ways = list(finds(found))
            chosen = []
            for part in parts:
                right = [(where, take) for where, take in ways if _right(take, found, part)]
                chosen += right[:1]
            if isinstance(want, tuple) and len(chosen) == len(parts):
                name = f"{handed}, {[where for where, _ in chosen]}"
                yield name, _adapted(candidate, arrange, [take for _, take in chosen], tuple)
            elif len(chosen) == 1 and not isinstance(want, tuple):
                yield (
                    f"{handed}, {chosen[0][0]}",
                    _adapted(candidate, arrange, [chosen[0][1]], lambda found: found[0]),
                )


def _adapted(
    candidate: Callable[..., Any], arrange: Any, takes: list[Any], gather: Any
) -> Callable[..., Any]:
    def answer(*args: Any) -> Any:
        found = candidate(*arrange(args))
        return gather([take(found) for take in takes])

    return answer


def _right(take: Callable[[Any], Any], found: Any, want: Any) -> bool:
    try:
        value = take(found)
        if isinstance(want, torch.Tensor):
            return (
                isinstance(value, torch.Tensor)
                and value.shape == want.shape
                and bool(torch.isclose(value.double(), want.double(), 1e-4, 1e-6).all())
            )
        if isinstance(want, bool | None):
            return value is want
        return isinstance(value, int | float) and abs(value - want) <= 1e-6 * max(1, abs(want))
    except Exception:
        return False


def _takes(candidate: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(candidate).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _no_fork() -> int:
    """A candidate that starts processes would leave them behind when its time is over."""
    raise OSError("a candidate starts no processes")


def _within(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*args)
    except SystemExit as error:
        raise RuntimeError("it ended the program") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# -------------------------------------------------------------------------------------------------- the search


def built_from_a_config(cls: type) -> Callable[..., Any]:
    """A class that takes a config, as one with the arguments of MoELayer."""

    def build(d_model: int, d_ff: int, num_experts: int, top_k: int, renormalize: bool = True) -> Any:
        from moe_course.config import MoEConfig

        return cls(
            MoEConfig(
                d_model=d_model, d_ff=d_ff, num_experts=num_experts, top_k=top_k, renormalize=renormalize
            )
        )

    return build


def speaks_to_ranks(candidate: Any) -> bool:
    """Whether it stands in a module that knows torch.distributed; no other code can answer on ranks."""
    module = sys.modules.get(getattr(candidate, "__module__", ""))
    return module is not None and torch.distributed in vars(module).values()


def winners(
    name: str, parts: dict[str, Any], calls: list[Any], tried: list[tuple[str, Any]]
) -> list[list[Any]]:
    """Every candidate that gets more than half of an exercise's points: name, adapter, score, full marks.

    parts: the library's version of each part of the exercise; a candidate takes the place of the first.
    """
    found = []
    for where, candidate in tried:
        if calls:
            ways = adapters(candidate, calls)
        elif inspect.isclass(parts[name]) and inspect.isclass(candidate) and issubclass(candidate, nn.Module):
            ways = iter([("as it is", candidate), ("from a config", built_from_a_config(candidate))])
        elif not inspect.isclass(parts[name]) and speaks_to_ranks(candidate):
            ways = iter([("as it is", candidate)])
        else:
            continue
        for way, answer in dict(ways).items():
            try:
                verdict = _within(60.0, grade, name, LiveSubject(parts | {name: answer}), SEED)
            except Exception:
                continue
            if verdict.score > verdict.max_score / 2:
                found.append([where, way, verdict.score, verdict.max_score])
                break
    return found


def search(
    notebook: str, parts: dict[str, dict[str, Any]], calls: dict[str, list[Any]]
) -> dict[str, list[list[Any]]]:
    """The answers that are left to the exercises of a notebook. For a process of its own."""
    kept = ("moe_course.grading", "moe_course.config", "moe_course.lazy", "moe_course.shapes", "moe_course")
    for module in [module for module in sys.modules if module.startswith("moe_course")]:
        if module not in kept and not module.startswith("moe_course.grading."):
            del sys.modules[module]
    sys.meta_path.insert(0, Mask(masked_modules(notebook)))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGALRM, _stop)
    Figure.__init__ = _stop  # drawing is slow, and no answer comes back in a figure
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        tried = list(candidates(notebook))
        assert len(tried) > 100, "hardly anything loads: is something wrong with the masks?"
        return {name: winners(name, parts[name], calls[name], tried) for name in parts}


def _stop(*_: Any, **__: Any) -> None:
    raise TimeoutError("this takes too long")


def main(options: list[str]) -> None:
    global masked_modules
    names = [option for option in options if not option.startswith("--")]
    if "--unmasked" in options:
        masked_modules = lambda notebook: ("transformers",)  # noqa: E731  (to see what the search would find)
    names = names or [name for name, exercise in EXERCISES.items() if exercise.graded]
    torch.manual_seed(0)
    random.seed(0)
    parts = {name: library_parts(name) for name in names}
    calls = {name: [] if inspect.isclass(parts[name][name]) else remembered(name) for name in names}
    if "--without-ranks" in options:
        names = [name for name in names if calls[name] or inspect.isclass(parts[name][name])]
        parts = {name: parts[name] for name in names}
    for notebook in dict.fromkeys(EXERCISES[name].notebook for name in names):
        mine = {each.name: parts[each.name] for each in exercises_of(notebook) if each.name in parts}
        told = Path(
            f"{notebook}.json"
        ).resolve()  # no descriptor: candidates open, and close, the numbers they get
        if os.fork() == 0:
            try:
                told.write_text(json.dumps(search(notebook, mine, calls)), encoding="utf-8")
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(0)
        os.wait()
        for name, found in json.loads(told.read_text(encoding="utf-8")).items():
            print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    os.environ["HOME"] = str(Path.cwd())
    main(sys.argv[1:])
