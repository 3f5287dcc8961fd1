"""Build the site: run the notebooks, lay out what Sphinx reads, and let it write the pages.

What Sphinx reads has the repository's own layout, so that a link between two documents works in both. A link to a
file that is no page, such as a module, becomes plain text.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import nbformat

from moe_course.authoring.executed import executed
from moe_course.authoring.site.pages import page

SECTIONS = {
    "Notebooks": ["notebooks/*"],
    "Try it": ["taste/*"],
    "Look it up": [
        *(
            "docs/glossary",
            "docs/cheat_sheet",
            "docs/first_hour",
            "docs/own_model",
            "docs/conventions",
            "docs/comparison",
        ),
        *("docs/bibliography", "docs/machines", "docs/gpu"),
    ],
    "The library": ["api/*"],
    "What was measured": ["docs/results", "docs/benchmarks", "docs/graders"],
    "Teaching": ["docs/instructors", "docs/learners", "docs/teaching/*"],
    "More": ["*"],
}
"""The table of contents: {heading: patterns of pages}. A page stands where it is named first."""
TITLES = {
    "docs/learners": "The README of the student bundle"
}  # where a page's own title would be a second home page

FOR_TEACHERS = ("teaching/[0-9]*.md", "teaching/question_bank_answers.md")
"""Documents with the answers to exam questions: only a site for teachers has them."""

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:)([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
BUILT = ".buildinfo"  # Sphinx writes it into every site


def build(
    root: Path,
    target: Path,
    store: Path,
    *,
    full: bool = False,
    teachers: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Write the site of the repository `root` into the folder `target`, which may hold an earlier one.

    Executed notebooks are kept in `store`; `full` runs their trainings in full. With `teachers` it has the guides,
    whose exam questions are answered. Raises ValueError if `target` holds
    something else, and if Sphinx finds anything to complain about; `target` is then what it was.
    """
    if not (root / "site").is_dir():
        raise ValueError(f"{root} has no folder site/: the web site is built from the whole repository")
    if target.exists() and (
        not target.is_dir() or (any(target.iterdir()) and not (target / BUILT).is_file())
    ):
        raise ValueError(f"{target} holds something that is no site: choose a new folder")
    with tempfile.TemporaryDirectory(prefix="moe-site-") as folder:
        source, pages = Path(folder, "source"), Path(folder, "pages")
        runs = {}
        for notebook in sorted((root / "solutions").glob("*/*.ipynb")):
            say(f"running {notebook.stem}")
            runs[notebook.stem] = executed(notebook, store, full=full)
        lay_out(root, runs, source, full=full, teachers=teachers)
        say("writing the pages")
        write_pages(root, source, pages)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(pages, target)


def lay_out(
    root: Path,
    runs: dict[str, nbformat.NotebookNode],
    source: Path,
    *,
    full: bool = False,
    teachers: bool = False,
) -> None:
    """Write what Sphinx reads into the new folder `source`; `runs` are the executed notebooks by name."""
    copy_documents(root, source, teachers)
    for name, run in runs.items():
        place = source / "notebooks" / name / f"{name}.ipynb"
        place.parent.mkdir(parents=True)
        released = nbformat.read(root / "notebooks" / name / place.name, as_version=4)
        nbformat.write(page(run, released, full=full), place)
    home = source / "index.md"
    text = home.read_text(encoding="utf-8")
    readme = (root / "README.md").read_text(encoding="utf-8")
    for part, content in (
        ("layer", _figure(runs["00_start_here"], "layer-picture")),
        ("journey", _table(readme, "| Notebook |")),
        ("contents", contents(_pages(source))),
    ):
        text = text.replace(f"<!-- {part} -->", content)
    home.write_text(text, encoding="utf-8")
    for path in source.rglob("*.md"):
        linked = relink(path.read_text(encoding="utf-8"), path.relative_to(source), source, root)
        path.write_text(linked, encoding="utf-8")


def copy_documents(root: Path, source: Path, teachers: bool) -> None:
    """Sphinx's settings, the home page and all documents that this site may have, into the new folder `source`."""
    shutil.copytree(root / "site", source)
    shutil.copytree(root / "docs", source / "docs", ignore=shutil.ignore_patterns("*.py"))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(root / name, source)
    if not teachers:
        for pattern in FOR_TEACHERS:
            for path in (source / "docs").glob(pattern):
                path.unlink()


def _pages(source: Path) -> list[str]:
    found = (path for path in source.rglob("*") if path.suffix in (".md", ".rst", ".ipynb"))
    return sorted(path.relative_to(source).with_suffix("").as_posix() for path in found)


def contents(pages: list[str]) -> str:
    """The table of contents of all pages but the home page, as the directives that Sphinx reads."""
    left, parts = [page for page in pages if page != "index"], []
    for heading, patterns in SECTIONS.items():
        chosen = dict.fromkeys(page for p in patterns for page in left if fnmatch(page, p))
        left = [page for page in left if page not in chosen]
        if chosen:
            parts.append(
                "\n".join(
                    ["```{toctree}", ":hidden:", f":caption: {heading}", "", *map(_entry, chosen), "```"]
                )
            )
    return "\n\n".join(parts)


def _entry(page: str) -> str:
    return f"{TITLES[page]} <{page}>" if page in TITLES else page


def _figure(run: nbformat.NotebookNode, cell_id: str) -> str:
    """The figure that a cell shows, as HTML."""
    (cell,) = [cell for cell in run.cells if cell.id == cell_id]
    return next(out.data["text/html"] for out in cell.outputs if "text/html" in out.get("data", {}))


def _table(text: str, first: str) -> str:
    """The table of a Markdown text whose head begins with `first`."""
    lines = text[text.index(f"\n{first}") + 1 :].splitlines()
    return "\n".join(lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))])


def relink(text: str, place: Path, source: Path, root: Path) -> str:
    """A document's text with its links to files of the repository changed where the site has another page, or none.

    place: the document, relative to both folders.
    """
    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(lambda link: _link(link, place, source, root), part) for part in parts[::2]]
    return "".join(parts)


def _link(link: re.Match[str], place: Path, source: Path, root: Path) -> str:
    label, address, anchor = link[1], link[2], link[3] or ""
    path = Path(os.path.normpath(place.parent / address))
    elsewhere = {
        "README.md": "index.md",
        f"solutions/{path.stem}/{path.name}": f"notebooks/{path.stem}/{path.name}",
    }
    path = Path(elsewhere.get(path.as_posix(), path))
    if (source / path).is_file():
        return f"[{label}]({Path(os.path.relpath(path, place.parent)).as_posix()}{anchor})"
    return label if (root / path).exists() else link[0]


def write_pages(root: Path, source: Path, pages: Path) -> None:
    """Let Sphinx make `pages` of what `lay_out` wrote. Raises ValueError with whatever it complains about."""
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*command, str(source), str(pages)], cwd=root, env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(f"Sphinx complains:\n{done.stderr.replace(f'{source}{os.sep}', '')}")
