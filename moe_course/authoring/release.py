"""solutions/ -> notebooks/: built by nbgrader's generate_assignment in another folder, compared, then put in place.

The stock command removes a release before it builds the new one. Here every notebook is built in a temporary
folder first, so an error leaves notebooks/ as it was. The bytes are the same as those of the stock command.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from moe_course import files

CONFIG = "nbgrader_config.py"
_DONE = {"missing": "added", "different": "updated", "orphaned": "removed"}
_NO_PART = {
    ".gitkeep",
    ".DS_Store",
    ".ipynb_checkpoints",
}  # names in notebooks/ that a release neither writes nor removes


class ReleaseError(ValueError):
    """A source notebook that nbgrader cannot turn into a release; the message is nbgrader's own."""


class Stale(NamedTuple):
    """A file of notebooks/ that does not agree with solutions/: it is "missing", "different" or "orphaned"."""

    how: str
    file: Path  # relative to notebooks/


def release(root: Path, check: bool = False, say: Callable[[str], None] = print) -> bool:
    """Bring notebooks/ up to date with solutions/; with `check`, only say what is stale.

    Returns whether notebooks/ is up to date. Files without a source are removed: the folder holds
    generated files only. Raises ReleaseError, and changes nothing, when a source notebook cannot be built.
    """
    target = root / "notebooks"
    with tempfile.TemporaryDirectory(prefix="moe-release-") as folder:
        aside = Path(folder)
        build(root, aside)
        stale = compare(aside, target)
        for how, file in stale:
            say(f"notebooks/{file.as_posix()}: {how if check else _DONE[how]}")
            if not check:
                _put(aside / file, target / file)
    if not stale:
        say("notebooks/ is up to date with solutions/")
    elif check:
        say("run `moe-course release` to bring notebooks/ up to date with solutions/")
    return not (stale and check)


def build(root: Path, folder: Path) -> None:
    """Write the student version of every notebook in `root`/solutions into `folder`."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.utils import capture_log
    from traitlets.config.loader import PyFileConfigLoader

    config = PyFileConfigLoader(CONFIG, path=str(root)).load_config()
    # The stock command enters the assignment into a gradebook; that is left to the instructor.
    config.SaveCells.enabled = False
    course = CourseDirectory(
        config=config, root=str(root.resolve()), release_directory=str(folder.resolve()), assignment_id="*"
    )
    outcome = capture_log(GenerateAssignment(config=config, coursedir=course, no_database=True))
    if not outcome["success"]:
        raise ReleaseError(outcome.get("log") or outcome["error"])


def compare(built: Path, released: Path) -> list[Stale]:
    """The files in `released` that differ from the fresh ones in `built`."""
    fresh, old = _files(built), _files(released)
    stale = [Stale("missing", file) for file in fresh - old]
    stale += [Stale("orphaned", file) for file in old - fresh]
    stale += [
        Stale("different", file)
        for file in fresh & old
        if (built / file).read_bytes() != (released / file).read_bytes()
    ]
    return sorted(stale, key=lambda item: item.file)


def _files(folder: Path) -> set[Path]:
    relative = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in relative if not _NO_PART & set(path.parts)}


def _put(fresh: Path, target: Path) -> None:
    """Replace `target` in one step, so that nobody ever reads half a notebook. Without `fresh`, remove it."""
    if not fresh.exists():
        target.unlink()
        if not any(target.parent.iterdir()):
            target.parent.rmdir()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write(target, fresh.read_bytes())
