"""Nothing in the package is there for its own tests alone: the package, a notebook or a grader uses each name."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "moe_course"
CALLED_BY_LIBRARIES = {  # methods that a base class of another library calls
    "on_visit",
    "setup_context",
    *("handle_starttag", "block_math", "inline_math"),
    *(
        "ask_exit",
        "enable_gui",
        "enable_matplotlib",
        "init_ipython_dir",
        "init_profile_dir",
        "init_virtualenv",
    ),
    "_format_exception_for_storage",
}


def sources() -> dict[Path, str]:
    paths = [path for path in PACKAGE.rglob("*.py") if "_course" not in path.relative_to(PACKAGE).parts]
    return {path: path.read_text(encoding="utf-8") for path in paths}


def names_of(source: str) -> set[str]:
    """The functions, classes and constants that a module defines, methods included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()}
    return {name for name in names if not name.startswith("__")}


def unused(package: dict[Path, str], others: str) -> dict[str, Path]:
    """Names that occur once in their own module and nowhere else; that a package exports a name is no use of it."""
    words: dict[Path, list[str]] = {}
    for path, source in package.items():
        text = re.sub(r'"\w+"', "", source) if path.name == "__init__.py" else source
        words[path] = re.findall(r"\w+", text)
    used_outside = set(re.findall(r"\w+", others))
    found = {}
    for path, source in package.items():
        elsewhere = {word for other, text in words.items() if other != path for word in text} | used_outside
        for name in names_of(source) - CALLED_BY_LIBRARIES - elsewhere:
            if words[path].count(name) == 1:
                found[name] = path
    return found


def test_every_name_is_used():
    tests = [*(ROOT / "tests" / "graders").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    notebooks = [*(ROOT / "solutions").rglob("*.ipynb")]
    settings = [ROOT / "nbgrader_config.py", ROOT / "pyproject.toml", ROOT / "Makefile"]
    others = "\n".join(path.read_text(encoding="utf-8") for path in [*tests, *notebooks, *settings])
    found = unused(sources(), others)
    assert not found, {name: str(path.relative_to(ROOT)) for name, path in found.items()}


def test_an_unused_name_is_found():
    package = {
        Path("p/__init__.py"): 'HOME = {"lonely": "a", "shared": "a"}\nprint(HOME)',
        Path("p/a.py"): "def lonely(): ...\ndef shared(): ...\ndef inner(): ...\ninner()\nLIMIT = 3",
        Path("p/b.py"): "from p.a import shared",
    }
    assert set(unused(package, "")) == {"lonely", "LIMIT"}
    assert set(unused(package, "p.lonely(p.LIMIT)")) == set()
