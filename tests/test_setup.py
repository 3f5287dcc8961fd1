"""Set-up and packaging: the files that say what is installed agree; a broken .venv is never taken for good."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = {pin.name: pin for pin in map(Requirement, re.findall(r"(?m)^[^#].*", LOCK))}
EXTRAS = PROJECT["optional-dependencies"]
UNPINNED = {"tensorboard", "wandb"}  # each for one option of `moe-course train`, and for no test
PINNED = [group for name, group in EXTRAS.items() if name not in UNPINNED]
DIRECT = [Requirement(line) for group in [PROJECT["dependencies"], *PINNED] for line in group]


@pytest.mark.parametrize("wanted", DIRECT, ids=lambda wanted: wanted.name)
def test_lock_and_environment_pin_what_pyproject_asks_for(wanted):
    pin = PINS[wanted.name]
    (version,) = (part.version for part in pin.specifier)
    assert version in wanted.specifier
    line = f"{wanted.name}=={version}" + (f" ; {pin.marker}".replace('"', "'") if pin.marker else "")
    assert f"    - {line}\n" in (ROOT / "environment.yml").read_text()


def test_environment_pins_nothing_else():
    pip_section = (ROOT / "environment.yml").read_text().partition("  - pip:\n")[2]
    names = [re.match(r"    - ([\w-]+)==", line) for line in pip_section.splitlines()]
    assert [name and name[1] for name in names] == [*(wanted.name for wanted in DIRECT), None]
    assert pip_section.endswith("    - -e .\n")


def test_the_lock_is_made_of_all_extras_but_those_of_one_option():
    (extras,) = re.findall(r"(?m)^EXTRAS := (.*)$", (ROOT / "Makefile").read_text())
    assert set(extras.split()) == EXTRAS.keys() - UNPINNED
    for name in UNPINNED:
        assert [Requirement(line).name for line in EXTRAS[name]] == [name]
        assert name not in PINS


def test_the_lock_is_nothing_but_exact_public_versions():
    for pin in PINS.values():
        assert [part.operator for part in pin.specifier] == ["=="], pin
        assert pin.url is None, pin
        assert "+" not in str(pin.specifier), f"{pin}: a local build tag is of one machine's index"
    assert str(PINS["torch"].specifier) == "==2.13.0"
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))], (
        "PyTorch's own business"
    )
    assert "//" not in LOCK
    assert not re.search(r"(?m)^-", LOCK), "an option of pip"


def test_environment_allows_the_pythons_of_the_lock():
    assert PROJECT["requires-python"] == ">=3.11"
    assert "  - python >=3.11,<3.14\n" in (ROOT / "environment.yml").read_text()


def test_one_version_in_every_file():
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"(?m)^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", log)
    assert versions[0][0] == PROJECT["version"]
    assert versions == sorted(versions, key=lambda one: [*map(int, one[0].split("."))], reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # Keep a Changelog
    assert {*re.findall(r"(?m)^### (.*)$", log)} <= kinds

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format demands
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["date-released"]) == versions[0]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_import_of_the_package_is_declared():
    distributions = importlib.metadata.packages_distributions()
    declared = {wanted.name for wanted in DIRECT}
    for path in (ROOT / "moe_course").rglob("*.py"):
        for module in _imported(ast.parse(path.read_text())):
            if module in sys.stdlib_module_names or module in ("moe_course", "graders"):
                continue
            providers = {canonicalize_name(name) for name in distributions.get(module, [])}
            assert providers & declared, f"{path.relative_to(ROOT)} imports {module}"


def _imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def test_the_readmes_two_commands_are_those_of_ci():
    first_screen = (ROOT / "README.md").read_text().splitlines()[:60]
    shown = [line.split("#")[0].strip() for line in first_screen]
    assert "make lab" in shown
    assert "make test" in shown
    ci = re.findall(r"(?m)^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text())
    assert ci == ["lab", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ci:
        assert re.search(
            rf"(?m)^{target}: \$\(READY\) .*\n\t@\$\(BIN\)/moe-course {target} \$\(ARGS\)$", makefile
        )


@pytest.mark.slow
def test_the_wheel_carries_the_course(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, inside in [
        ("moe_course", "moe_course"),
        ("tests/graders", "moe_course/_course/graders"),
        ("notebooks", "moe_course/_course/notebooks"),
    ]:
        files = [path.relative_to(ROOT / source) for path in (ROOT / source).rglob("*") if path.is_file()]
        wanted = {f"{inside}/{file.as_posix()}" for file in files if _is_source(file)}
        assert wanted <= names
    assert any(name.endswith(".ipynb") for name in names)
    assert "moe_course/_course/requirements.lock" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "solutions/"))]


def _is_source(file):
    """Not a cache, and not a dot file."""
    return not any(part == "__pycache__" or part.startswith(".") for part in file.parts)


# A stand-in for Python: it notes its arguments, `-m venv` copies it, and what $BREAK names fails.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in *"${BREAK:-nothing}"*) exit 1 ;; esac
case "$*" in *"-m venv"*) for dir; do :; done; mkdir -p "$dir/bin" && cp "$0" "$dir/bin/python" ;; esac
"""


@pytest.fixture
def fresh(tmp_path):
    """Runs `make setup` in a new checkout with a stand-in for Python."""
    if shutil.which("make") is None:
        pytest.skip("no make: Windows calls moe-course")
    checkout = tmp_path / "a checkout"  # with a space, as in real homes
    checkout.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, checkout)
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    calls = tmp_path / "calls"

    def setup(folder=checkout, broken=""):
        """(make's result, how often pip installed the lock)"""
        calls.write_text("")
        environ = {"PATH": os.environ["PATH"], "CALLS": str(calls), "BREAK": broken}
        make = ["make", "setup", f"PYTHON={python}"]
        result = subprocess.run(make, cwd=folder, env=environ, capture_output=True, text=True)
        return result, calls.read_text().count("-r requirements.lock")

    setup.checkout = checkout
    return setup


def test_make_alone_lists_the_targets():
    if shutil.which("make") is None:
        pytest.skip("no make: Windows calls moe-course")
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"(?m)^  make ([a-z-]+) +\S", listed)[:6] == [
        "help",
        "setup",
        "lab",
        "test",
        "test-all",
        "check",
    ]


def test_setup_is_done_once(fresh):
    result, installs = fresh()
    assert result.returncode == 0, result.stderr
    assert installs == 1
    assert "to download" in result.stdout
    assert fresh()[1] == 0


@pytest.mark.parametrize("step", ["-r requirements.lock", "-e ."])
def test_an_interrupted_setup_is_taken_up_again(fresh, step):
    assert fresh(broken=step)[0].returncode != 0
    result, installs = fresh()
    assert result.returncode == 0, result.stderr
    assert installs == 1
    assert fresh()[1] == 0


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_setup_follows_a_change(fresh, changed):
    fresh()
    later = (fresh.checkout / ".venv" / ".ready").stat().st_mtime + 5
    os.utime(fresh.checkout / changed, (later, later))
    assert fresh()[1] == 1


def test_a_moved_checkout_is_set_up_anew(fresh):
    fresh()
    moved = fresh.checkout.rename(fresh.checkout.with_name("moved"))
    (moved / ".venv" / "left-over").touch()
    assert fresh(moved)[1] == 1
    assert not (moved / ".venv" / "left-over").exists()
    assert fresh(moved)[1] == 0


def test_a_python_that_is_gone_is_replaced(fresh):
    fresh()
    (fresh.checkout / ".venv" / "bin" / "python").unlink()
    assert fresh()[1] == 1
    assert fresh()[1] == 0


@pytest.mark.parametrize(
    ("broken", "says"),
    [("version_info", "needs Python 3.11 or newer"), ("ensurepip", "apt install python3-venv")],
)
def test_an_unfit_python_is_named(fresh, broken, says):
    result, installs = fresh(broken=broken)
    assert result.returncode != 0
    assert says in result.stderr
    assert installs == 0
    assert not (fresh.checkout / ".venv").exists()
