"""A probe with the parts of earlier exercises at hand: where a learner skipped one, a stand-in takes its place."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from moe_course.grading.exercises.protocol import Outcome


def with_parts(
    namespace: Mapping[str, Any],
    parts: Mapping[str, str],
    name: str,
    probe: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Outcome:
    """What the probe "graders.probes.lm:train_steps", say, reports of the learner's function `name`.

    `parts`: the names of earlier exercises that it may call, each with the source of a stand-in. The stand-in is used
    where the learner's own part is missing or not written (it raises NotImplementedError), and nowhere else.
    """
    module, _, function = probe.partition(":")
    run = getattr(importlib.import_module(module), function)
    with _at_hand(getattr(namespace.get(name), "__globals__", {}), parts) as used:
        out = run(namespace, *args, **kwargs)
    return dataclasses.replace(out, stood_in=tuple(sorted(used)))


@contextlib.contextmanager
def _at_hand(names: dict[str, Any], parts: Mapping[str, str]) -> Iterator[set[str]]:
    """The parts among the global names of a learner's function; afterwards the names are as they were.

    Gives the set of the parts for which a stand-in answers; it fills as they are called.
    """
    before = {part: names[part] for part in parts if part in names}
    used: set[str] = set()
    for part, source in parts.items():
        names[part] = _either(before.get(part), source, part, used)
    try:
        yield used
    finally:
        for part in parts:
            names.pop(part, None)
        names.update(before)


def _either(own: Callable[..., Any] | None, source: str, part: str, used: set[str]) -> Callable[..., Any]:
    """The learner's own function, and the stand-in where there is none."""
    made: dict[str, Any] = {}
    exec(source, made)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        if own is not None:
            with contextlib.suppress(NotImplementedError):
                return own(*args, **kwargs)
        used.add(part)
        return made[part](*args, **kwargs)

    return chosen
