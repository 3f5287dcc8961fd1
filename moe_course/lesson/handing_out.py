"""`moe-course start`: the notebooks of the course as the learner's own files, and their way to a newer version."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from moe_course.lesson import news
from moe_course.lesson.forms import (
    MADE,
    RELOAD,
    copy,
    file_of,
    read_notebook,
    unused,
    uses_scripts,
    write_notebook,
)
from moe_course.lesson.home import STATE, read_json, update_json


def start(notebooks: Path, work: Path, scripts: bool | None = None) -> list[str]:
    """Copy the released `notebooks` into `work`, or bring older copies up to date; returns what to say.

    scripts: whether the folder holds scripts in place of notebooks, by default what it holds already. Nothing a
    learner wrote is lost: answers, edits and added cells move to the new file, and the old one stays beside it.
    Raises ValueError where a file cannot be turned into the other form; then nothing has been changed.
    """
    releases = sorted(notebooks.glob("*/*.ipynb"))
    bases = {released: work / STATE / "base" / released.name for released in releases}
    known = [released.stem for released, base in bases.items() if base.exists()]
    changed = [
        released.stem
        for released, base in bases.items()
        if base.exists() and base.read_bytes() != released.read_bytes()
    ]
    before = read_json(work / STATE / MADE).get("version", news.UNRECORDED) if known else news.newest()
    lines = []
    if scripts is not None and scripts != uses_scripts(work):
        lines += _turn(releases, work, scripts)
        _note(work, scripts=scripts)
    lines += [line for released in releases for line in _hand_out(released, work)]
    _note(work, version=news.newest())
    fresh = [released.stem for released in releases if released.stem not in known]
    return lines + (_news(before, changed, fresh) if before != news.newest() else [])


def _note(work: Path, **made: Any) -> None:
    """Write into made.json what is not there yet."""
    if {**read_json(work / STATE / MADE), **made} != read_json(work / STATE / MADE):
        update_json(work / STATE / MADE, lambda kept: {**kept, **made})


def _news(before: str, changed: list[str], fresh: list[str]) -> list[str]:
    """What a learner should know whose folder was made with another version of the course."""
    return [
        f"This is version {news.newest()} of the course; your folder was made with {before}.",
        *([f"  changed: {', '.join(changed)}"] if changed else []),
        *([f"  new: {', '.join(fresh)}"] if fresh else []),
        *(f"  {entry}" for entry in news.since(before)),
    ]


def _turn(releases: list[Path], work: Path, scripts: bool) -> list[str]:
    """Make scripts of the learner's notebooks, or notebooks of their scripts; the files they come from stay."""
    from moe_course.lesson.merge import merge

    turned = {}
    for released in releases:
        mine, base = file_of(released.stem, work), work / STATE / "base" / released.name
        if mine.exists():
            handed = read_notebook(base if base.exists() else released)
            turned[mine] = merge(handed, handed, read_notebook(mine)).notebook
    lines = []
    for mine, notebook in turned.items():
        target = file_of(mine.stem, work, scripts)
        if target.exists():
            copy(target, _before(target))
        write_notebook(target, notebook)
        lines.append(f"{target}: made from {mine.name}, which stays, and no longer counts")
    return lines


def _hand_out(released: Path, work: Path) -> list[str]:
    mine = file_of(released.stem, work)
    base = work / STATE / "base" / released.name
    if not mine.exists():
        for file in filter(Path.is_file, released.parent.iterdir()):
            if file != released and not (mine.parent / file.name).exists():
                copy(file, mine.parent / file.name)
        if mine.suffix == released.suffix:
            copy(released, mine)
        else:
            write_notebook(mine, read_notebook(released))
        copy(released, base)
        return [f"{mine}: ready"]
    if not base.exists():
        copy(released, base)
        return [f"{mine}: kept as it is. For a fresh copy, move it away and start again."]
    if base.read_bytes() == released.read_bytes():
        return []
    return _update(released, base, mine)


def _update(released: Path, base: Path, mine: Path) -> list[str]:
    from moe_course.lesson.merge import merge

    try:
        merged = merge(*(read_notebook(path) for path in (base, released, mine)))
    except ValueError as error:
        return [
            f"{error}; left alone. There is a new version: move this file away and start again to get it."
        ]
    before = _before(mine)
    # In this order, whatever an interruption leaves undone is done by the next start.
    copy(mine, before)
    write_notebook(mine, merged.notebook)
    copy(released, base)
    return [
        f"{mine}: new version, with {merged.answers} answer(s) and {merged.own_cells} cell(s) of yours in it",
        f"  the file as it was: {before.name}",
        *(f"  {note}" for note in merged.notes),
        RELOAD,
    ]


def _before(mine: Path) -> Path:
    """Where the learner's file is kept as it was."""
    return unused(mine.with_name(f"{mine.stem}.before-{datetime.now():%Y-%m-%d}{mine.suffix}"))
