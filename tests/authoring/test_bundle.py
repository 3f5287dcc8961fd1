"""The student bundle: it holds no answer, says so if it would, and works in an environment of its own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from synthetic import ROOT

from moe_course.authoring import bundle
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "moe"
    bundle.write(ROOT, folder)
    return folder


def test_what_a_learner_needs_is_there(written):
    for name in NOTEBOOKS:
        assert (written / "notebooks" / name / f"{name}.ipynb").is_file()
    assert "make lab" in (written / "README.md").read_text(encoding="utf-8")
    assert (written / "moe_course" / "grading" / "judge" / "live.py").is_file()


def test_pages_that_learners_are_sent_to_are_there(written):
    """By a notebook, by another page, and by a test that reads its page when it is imported."""
    ours = {path.name for path in (ROOT / "docs").glob("*.md")}
    naming = re.compile(r"""docs(?:/|"\s*/\s*")(\w+\.md)|\]\((\w+\.md)""")
    named = set()
    for path in (
        *written.glob("notebooks/*/*.ipynb"),
        *written.glob("tests/**/*.py"),
        *written.glob("docs/*.md"),
    ):
        named |= {page for pair in naming.findall(path.read_text(encoding="utf-8")) for page in pair if page}
    assert {"first_hour.md", "own_model.md"} <= named
    assert named & ours <= {path.name for path in (written / "docs").iterdir()}


def test_what_tells_answers_is_not(written):
    names = {part for path in written.rglob("*") for part in path.relative_to(written).parts}
    assert not names & {"solutions", "hidden", "alternatives", "misconceptions", ".git"}
    learners = {"cheat_sheet.md", "conventions.md", "first_hour.md", "glossary.md", "own_model.md"}
    assert {path.name for path in (written / "docs").iterdir()} == learners
    assert not (written / "site").exists()
    assert list(bundle.leaks(ROOT, written)) == []


def test_no_telling_line_stands_in_any_file(written):
    """Beside the library and the oracles, which are open: searched here without the bundler's own help."""
    secret = set()
    for folder in bundle.SECRET:
        for path in (ROOT / folder).rglob("*.py"):
            secret |= {line.strip() for line in path.read_text(encoding="utf-8").splitlines()}
    hints = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/graders").glob("test_*.py"))
    questions = {
        line for line in secret if line.startswith('"""') and line.strip('"') not in hints and len(line) > 40
    }
    assert len(questions) > 100
    texts = [path.read_bytes() for path in written.rglob("*") if path.is_file()]
    for question in questions:
        needle = question.strip('"').encode()
        assert not any(needle in text for text in texts), question


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("notebooks/note.md", "    weights_TK, idx_TK = torch.topk(probs_TE, k, dim=-1)"),
        ("moe_course/extra.py", (ROOT / "tests/misconceptions/02_topk_routing/switch_gate.py").read_text()),
    ],
)
def test_a_leak_is_noticed(written, tmp_path, place, text):
    leaky = tmp_path / "leaky"
    (leaky / place).parent.mkdir(parents=True)
    (leaky / place).write_text(text, encoding="utf-8")
    assert any(place in found for found in bundle.leaks(ROOT, leaky))


@pytest.mark.parametrize("place", ["moe_course/moe/handout", "notebooks/handout"])
def test_a_bundle_is_not_written_into_what_it_copies(place):
    with pytest.raises(ValueError, match="choose another folder"):
        bundle.write(ROOT, ROOT / place)
    assert not (ROOT / place).exists()


def test_nothing_is_left_of_a_bundle_that_would_tell_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "leaks", lambda checkout, target: iter(["notebooks/x: an answer"]))
    with pytest.raises(ValueError, match="would tell answers"):
        bundle.write(ROOT, tmp_path / "handout")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        bundle.write(ROOT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def installed(written):
    """The bundle with a virtual environment of its own, which borrows the pinned packages of this one.

    A fresh `make lab` downloads and unpacks them: that takes minutes, and CI has just done it for the checkout.
    """
    subprocess.run([sys.executable, "-m", "venv", str(written / ".venv")], check=True)
    (packages,) = (written / ".venv" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    scripts = Path(sysconfig.get_path("scripts"))
    path = os.pathsep.join((str(scripts), os.environ["PATH"]))
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "MOE_COURSE_OWN")
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"PATH": path}


def make(written, env, *words):
    return subprocess.run(["make", *words], cwd=written, env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("make"), reason="needs make")
def test_it_works_in_an_environment_of_its_own(written, installed):
    """`make lab` comes up, `make test` finds its tests and is green, and a mistake still has a name."""
    lab = make(written, installed, "lab", "ARGS=--until-ready")
    assert lab.returncode == 0, lab.stdout + lab.stderr
    assert (written / "work" / "02_topk_routing" / "02_topk_routing.ipynb").is_file()

    # All of them are there; run are those that no other test of this session has run in the same way.
    for arguments in ("--collect-only -q", "--seeds=1 -q tests/grading/test_library.py tests/test_shapes.py"):
        tests = make(written, installed, "test", f"ARGS={arguments} -p no:cacheprovider")
        assert tests.returncode == 0, tests.stdout[-3000:] + tests.stderr[-3000:]

    wrong = written / "work" / "wrong.py"
    wrong.write_text("def ffn_params(d_model, d_ff):\n    return 2 * d_model * d_ff\n")
    where = "import moe_course; print(moe_course.__file__)"
    python = written / ".venv" / "bin" / "python"
    run = [python, "-c", where]
    assert str(written) in subprocess.run(run, capture_output=True, text=True, env=installed, cwd="/").stdout
    check = [python, "-m", "moe_course.command.cli", "check", str(wrong)]
    said = subprocess.run(check, capture_output=True, text=True, env=installed, cwd=written).stdout
    assert "This behaves like" in said
    assert "decided at grading" in said
    assert len(EXERCISES) > 10


def test_the_makefile_is_for_learners(written):
    """Its rules are those that a learner needs, and `make` still reads it."""
    makefile = (written / "Makefile").read_text(encoding="utf-8")
    rules = set(re.findall(r"^([a-z-]+): .*##", makefile, flags=re.MULTILINE))
    assert rules == {"help", "setup", "lab", "test"}
    whole = set(re.findall(r"^([a-z-]+): .*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert whole - rules <= {*bundle.CONTRIBUTORS}
    if shutil.which("make"):
        shown = subprocess.run(["make", "help"], cwd=written, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "make lab" in shown.stdout
        assert "graders" not in shown.stdout
        assert "the browser" not in shown.stdout, "the bundle has no tests in a browser"
        assert "moe-course status" in shown.stdout


def test_the_readme_lists_the_notebooks_with_their_times(written):
    readme = (written / "README.md").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        assert re.search(rf"^\\| {name[:2]} .* \\| [\\d½]+ (h|min) \\|$", readme, flags=re.MULTILINE), name
