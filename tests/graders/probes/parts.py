"""A probe with the parts of earlier exercises at hand: where a learner skipped one, a stand-in takes its place."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    with _at_hand(getattr(namespace.get(name), "__globals__", {}), parts):
        return run(namespace, *args, **kwargs)


@contextmanager
def _at_hand(names: dict[str, Any], parts: Mapping[str, str]) -> Iterator[None]:
    """The parts among the global names of a learner's function; afterwards the names are as they were."""
    before = {part: names[part] for part in parts if part in names}
    for part, source in parts.items():
        names[part] = _either(before.get(part), source, part)
    try:
        yield
    finally:
        for part in parts:
            names.pop(part, None)
        names.update(before)


def _either(own: Callable[..., Any] | None, source: str, part: str) -> Callable[..., Any]:
    """The learner's own function, and the stand-in where there is none."""
    made: dict[str, Any] = {}
    exec(source, made)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        if own is None:
            return made[part](*args, **kwargs)
        try:
            return own(*args, **kwargs)
        except NotImplementedError:
            return made[part](*args, **kwargs)

    return chosen
