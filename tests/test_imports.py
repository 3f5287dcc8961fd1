"""Imports run one way, in no circle, and packages load lazily.

    shapes → config → published, moe → systems → lm, analysis → viz → lesson

`grading` stands apart, so that the modules which answer an exercise can be masked while it is graded, and the
graders in tests/graders are independent of the library they judge. The command sees all. Inside grading and lm:

    exercises → submission, worker → judge → cohort           corpus, model → training → experiment
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "moe_course"

MAY_IMPORT: dict[str, set[str]] = {
    "shapes": set(),
    "config": {"shapes"},
    "published": {"config"},
    "moe": {"shapes", "config"},
    "lm": {"shapes", "config", "moe", "systems"},
    "systems": {"shapes", "config", "published", "moe"},
    "analysis": {"shapes", "config", "moe"},
    "viz": {"shapes", "config", "published", "moe", "lm", "systems", "analysis"},
    "lesson": {"shapes", "config", "published", "moe", "lm", "systems", "analysis", "viz", "grading"},
    "grading": {"shapes", "config"},
    "authoring": {"shapes", "config", "grading"},
    "graders": {"shapes", "config", "published", "grading"},  # tests/graders
}
ROOMS: dict[str, dict[str, set[str]]] = {  # a file beside the rooms (plugins.py) may import them all
    "grading": {
        "exercises": set(),
        "submission": {"exercises"},
        "worker": {"exercises"},
        "judge": {"exercises", "submission", "worker"},
        "cohort": {"exercises", "submission", "worker", "judge"},
    },
    "lm": {
        "corpus": set(),
        "model": set(),
        "training": {"model"},
        "experiment": {"corpus", "model", "training"},
    },
}
for allowed in MAY_IMPORT.values():
    allowed |= {"lazy", "files", "jsonl", "progress", "tables", "hardware"}
MAY_IMPORT["lazy"] = MAY_IMPORT["files"] = MAY_IMPORT["progress"] = MAY_IMPORT["tables"] = MAY_IMPORT[
    "hardware"
] = set()
MAY_IMPORT["jsonl"] = {"files"}
COMMAND = {"command", "__main__"}  # may import everything, imported by no other part
HEAVY = {"torch", "numpy", "matplotlib", "IPython", "ipywidgets", "nbformat", "nbgrader", "pytest"}


def imported_modules(source: str, module: str, is_package: bool = False) -> set[str]:
    """Every module named by an import anywhere in the source, functions included, as dotted names.

    `from a import b` may mean the module a.b: both are named. So is a literal import_module("a.b").
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def parts_imported(modules: set[str]) -> set[str]:
    """The parts of moe_course among the modules: "moe" for "moe_course.moe.router"."""
    return {m.split(".")[1] for m in modules if m.startswith("moe_course.")} & (MAY_IMPORT.keys() | COMMAND)


def violations(part: str, modules: set[str]) -> set[str]:
    return parts_imported(modules) - MAY_IMPORT[part] - {part}


def course_files() -> list[Path]:
    """Every module of the package and of the graders; what a wheel carries in _course is a copy."""
    in_package = [p for p in PACKAGE.rglob("*.py") if "_course" not in p.relative_to(PACKAGE).parts]
    return sorted([*in_package, *(ROOT / "tests" / "graders").rglob("*.py")])


def dotted(path: Path) -> tuple[str, str, bool]:
    """(part, module name, is a package) of a file."""
    base = PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT / "tests"
    names = list(path.relative_to(base).with_suffix("").parts)
    is_package = names[-1] == "__init__"
    names = names[:-1] if is_package else names
    part = names[0] if names[0] == "graders" else (names[1] if len(names) > 1 else "__init__")
    return part, ".".join(names), is_package


@pytest.mark.parametrize("path", course_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part, module, is_package = dotted(path)
    if part in COMMAND:
        return
    modules = imported_modules(path.read_text(encoding="utf-8"), module, is_package)
    if part == "__init__":
        assert not parts_imported(modules), "moe_course itself imports none of its parts"
    else:
        assert part in MAY_IMPORT, f"{part} has no place in the order of imports yet: give it one here"
        assert not violations(part, modules)


@pytest.mark.parametrize(
    "path",
    [path for path in course_files() if path.parent.parent.name in ROOMS and path.is_relative_to(PACKAGE)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_between_rooms_run_one_way(path):
    part, room = path.parent.parent.name, path.parent.name
    _, module, is_package = dotted(path)
    assert room in ROOMS[part], f"{part}/{room} has no place in the order of rooms yet: give it one here"
    assert not strangers(part, room, imported_modules(path.read_text(encoding="utf-8"), module, is_package))


def strangers(part: str, room: str, modules: set[str]) -> set[str]:
    """The modules of its part that a room may not import: of other rooms, and those beside the rooms."""
    inside = {tuple(module.split(".")[2:]) for module in modules if module.startswith(f"moe_course.{part}.")}
    return {".".join(names) for names in inside if names[0] not in ROOMS[part][room] | {room}}


def test_a_room_that_imports_upwards_is_found():
    source = "from moe_course.grading.judge import live\nfrom moe_course.grading.exercises import locate"
    assert strangers("grading", "worker", imported_modules(source, "moe_course.grading.worker.serve")) == {
        "judge",
        "judge.live",
    }
    assert strangers("grading", "judge", {"moe_course.grading.plugins"}) == {"plugins"}


def files_imported(files: dict[str, Path]) -> dict[str, set[str]]:
    """module → the files among `files` that it imports, under TYPE_CHECKING and inside functions included."""
    graph = {}
    for module, path in files.items():
        found = imported_modules(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
        graph[module] = {name for name in found if name in files and files[name].name != "__init__.py"}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circle_among_the_files_of_the_package():
    files = {module: path for path in course_files() for _, module, _ in [dotted(path)]}
    assert circle(files_imported(files)) == []


def test_a_circle_is_found(tmp_path):
    sources = {
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import b",
        "b": "def late():\n    import p.c",
        "c": "from p.a import x",
    }
    files = {}
    for name, source in sources.items():
        files[f"p.{name}"] = tmp_path / f"{name}.py"
        files[f"p.{name}"].write_text(source)
    assert set(circle(files_imported(files))) == {"p.a", "p.b", "p.c"}


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("import moe_course.systems.accounting", {"systems"}),
        ("from moe_course.systems import accounting", {"systems"}),
        ("from moe_course import viz, shapes", {"viz"}),
        ("from ..lesson.card import Card", {"lesson"}),
        ("from .. import command", {"command"}),
        ("def f():\n    from moe_course.grading import check", {"grading"}),
        ("if True:\n    import importlib\n    importlib.import_module('moe_course.lm.train')", {"lm"}),
        ("from .experts import moe_loop\nfrom moe_course.shapes import check_axes\nimport torch.nn", set()),
    ],
)
def test_the_reading_of_imports(source, forbidden):
    """What a module of `moe` may not import is found however it is written."""
    assert violations("moe", imported_modules(source, "moe_course.moe.layer")) == forbidden


def test_a_relative_import_in_a_package_file_starts_at_the_package():
    assert imported_modules("from .router import x", "moe_course.moe", is_package=True) == {
        "moe_course.moe.router",
        "moe_course.moe.router.x",
    }


def loaded_by(*imports: str) -> dict[str, set[str]]:
    """Modules that are new after each import, one after the other, in a fresh interpreter."""
    code = "import sys\nbefore = set(sys.modules)\n" + "".join(
        f"import {name}\nprint({name!r}, *sorted(set(sys.modules) - before))\nbefore = set(sys.modules)\n"
        for name in imports
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return {words[0]: set(words[1:]) for words in map(str.split, run.stdout.splitlines())}


def test_packages_load_nothing_heavy_and_none_of_the_answers():
    packages = sorted(f"moe_course.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py"))
    packages = [package for package in packages if "._" not in package]
    assert "moe_course.moe" in packages
    for name, modules in loaded_by("moe_course", *packages).items():
        assert not modules & HEAVY, f"importing {name} loads {modules & HEAVY}"
        if name.rpartition(".")[2] not in ("grading", "authoring", "lesson"):
            own = {module for module in modules if module.startswith(f"{name}.")} - set(packages)
            assert not own, f"importing {name} loads {own}"


def test_published_models_and_their_costs_need_no_torch():
    """So `moe-course params` answers at once."""
    for modules in loaded_by("moe_course.published", "moe_course.systems.accounting").values():
        assert "torch" not in modules


@pytest.mark.parametrize(
    "package", ["moe_course.moe", "moe_course.systems", "moe_course.lm", "moe_course.analysis"]
)
def test_every_exported_name_is_there(package):
    module = __import__(package, fromlist=["*"])
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'router_prob'"):
        module.router_prob  # noqa: B018


def test_no_two_test_files_share_a_name():
    """Of files in folders without __init__.py pytest loads one of each name, and stops at the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py") if "graders" not in path.parts]
    assert sorted(set(names)) == sorted(names)
