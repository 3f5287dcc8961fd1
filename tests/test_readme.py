"""README's map of the repository names what exists, and names every room of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAP = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Map of the repository")[2]
TREE = MAP.split("```")[1]


def entries(tree: str) -> list[str]:
    """The paths of an indented tree, two columns a level: "moe_course/", "moe_course/moe/", ..."""
    above: list[str] = []
    paths = []
    for line in tree.splitlines():
        if found := re.match(r"(?P<indent>(  ){0,3})(?P<name>[\w.]+(?:\.\w+|/))(?:  |$)", line):
            depth = len(found["indent"]) // 2
            above = [*above[:depth], found["name"]]
            paths.append("".join(above))
    return paths


def test_the_tree_is_read_level_by_level():
    tree = "a/   one\nb/\n  c.py    two\n  d/      three,\n          more of it\n    e/   four\nf/"
    assert entries(tree) == ["a/", "b/", "b/c.py", "b/d/", "b/d/e/", "f/"]


@pytest.mark.parametrize("path", entries(TREE))
def test_what_the_map_names_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_every_room_of_the_package_is_on_the_map():
    rooms = [
        path.parent
        for path in (ROOT / "moe_course").rglob("__init__.py")
        if "_course" not in path.relative_to(ROOT / "moe_course").parts
    ]
    missing = {f"{room.relative_to(ROOT)}/" for room in rooms} - {*entries(TREE)}
    assert not missing


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_paths_in_the_text_of_a_document_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:moe_course|tests|benchmarks|docs)/[\w./]+)`", text):
        assert "NN_topic" in path or (ROOT / path).exists(), f"{document} names {path}, which does not exist"


def test_the_table_says_where_to_find_what_people_look_for():
    """Each file of the table holds what its row promises."""
    for path, holds in [
        ("moe_course/grading/exercises/rubric.py", "def criterion("),
        ("moe_course/grading/submission/intake.py", "def tasks("),
        ("moe_course/grading/worker/sandbox.py", "bubblewrap"),
        ("moe_course/lm/experiment/recipe.py", "peak="),
        ("moe_course/lm/training/step.py", "def learning_rate("),
        ("moe_course/viz/style.py", "EXPERT_COLORS ="),
    ]:
        assert f"`{path}`" in MAP
        assert holds in (ROOT / path).read_text(encoding="utf-8")
