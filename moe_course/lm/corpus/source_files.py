"""Two domains read from the source files of the environment: Python code, and the prose of docstrings.

Nothing is imported: the files are read as text, so torch need not load, and no docstring depends on the machine.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

from moe_course.lm.corpus.document import Document, shuffle_key

LIBRARIES = ("matplotlib", "numpy", "torch")
"""The libraries whose docstrings make up the domain "technical"."""

_TABLES_AND_LEGACY = {"encodings", "pydoc_data", "idlelib", "lib2to3", "distutils", "turtledemo", "ensurepip"}

_UNWANTED_FOLDERS = re.compile(
    r"(^|/)(tests?|testing|_inductor|_dynamo|_vendor|distutils|f2py|site-packages)/"
)

_LEXEME = re.compile(
    r"""
      \#[^\n]*                                                 # a comment may hold quotes: read past it
    | ^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(?P<name>\w+)
    | (?P<prefix>\b[rRuUbBfF]{1,2})?
      (?: \"{3}(?P<text>(?:[^"\\]|\\.|"(?!""))*)\"{3}
        | '{3}(?:[^'\\]|\\.|'(?!''))*'{3}
        | "(?:[^"\\\n]|\\.)*"
        | '(?:[^'\\\n]|\\.)*' )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)

SHORTEST = 80
"""How many characters a docstring must have to be kept: shorter ones say too little."""


def versions() -> dict[str, str]:
    """The versions of all that is read, without build tags: CPU and CUDA builds of torch have the same docstrings."""
    found = {name: importlib.metadata.version(name).partition("+")[0] for name in ("babel", *LIBRARIES)}
    return {"python": platform.python_version(), **found}


def folders() -> list[str]:
    """The folders that are read."""
    return [sysconfig.get_path("stdlib"), *(str(_folder(library)) for library in LIBRARIES)]


def code() -> Iterator[Document]:
    """The modules of the standard library, without tests, tables, old modules and files of one machine only."""
    library = Path(sysconfig.get_path("stdlib"))
    for path, name in _python_files([(library, "")]):
        top = name.partition("/")[0].removesuffix(".py")
        if top in sys.stdlib_module_names - _TABLES_AND_LEGACY and not top.startswith("_sysconfigdata"):
            text = _read(path)
            if text:
                yield Document(f"code/{name}", "code", text)


def technical() -> Iterator[Document]:
    """The docstrings of the libraries, one document for each source file, each after the name it describes."""
    for path, name in _python_files([(_folder(library), f"{library}/") for library in LIBRARIES]):
        text = "\n\n".join(docstrings(_read(path), _module(name)))
        if text:
            yield Document(f"technical/{name}", "technical", text + "\n")


def docstrings(source: str, module: str) -> Iterator[str]:
    """Every longer string in triple double quotes that begins its line, after the name that it describes.

    Besides docstrings these are the texts that `_torch_docs.py` and `_add_newdocs.py` attach to compiled
    functions; they get the module's name. A regular expression finds them: it reads 50 MB in a few seconds.
    """
    name = module
    for match in _LEXEME.finditer(source):
        if match["name"]:
            name = f"{module}.{match['name']}"
        text = match["text"]
        if text is None or len(text) < SHORTEST or "f" in (match["prefix"] or "").lower():
            continue
        line = source.rfind("\n", 0, match.start()) + 1
        if not source[line : match.start()].strip():
            follows_colon = source[max(0, line - 200) : line].rstrip().endswith(":")
            yield f"{name if follows_colon else module}\n{cleandoc(text)}"


def _python_files(roots: list[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """(path, name with "/") of the Python files below the folders, in shuffled order."""
    found = {
        prefix + name: path
        for root, prefix in roots
        for path in root.rglob("*.py")
        if not _UNWANTED_FOLDERS.search(name := path.relative_to(root).as_posix())
    }
    for name in sorted(found, key=shuffle_key):
        yield found[name], name


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _folder(library: str) -> Path:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        raise ValueError(f"the default corpus reads the docstrings of {library}, which is not installed")
    return Path(spec.origin).parent


def _read(path: Path) -> str:
    """The file's text with "\\n" at line ends; empty where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
