"""Images, the dev container and Binder: what their files name exists, is pinned, and runs as no root."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from synthetic import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
KNOWN = {"FROM", "RUN", "COPY", "ARG", "USER", "WORKDIR", "EXPOSE", "CMD"}


def instructions(text):
    """(instruction, its words) of a container file, with the lines of one instruction joined."""
    text = re.sub(r"(?m)^\s*#.*\n?", "", text)
    lines = [line.split(maxsplit=1) for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(name, words) for name, words in lines]


def problems(text):
    """What is wrong with a container file, in sentences."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, words in instructions(text):
        if name not in KNOWN:
            yield f"{name} is no instruction that we know"
        elif name == "FROM":
            image, *rest = words.split()
            stage = rest[1] if rest and rest[0] == "AS" else image
            if image not in stages and not re.search(r":\d+\.\d+\.\d+[\w.-]*$", image):
                yield f"{image} is not pinned to a version"
            stages[stage] = [*stages.get(image, [])]
        else:
            stages[stage].append((name, words))
    for stage, steps in stages.items():
        users = [words for name, words in steps if name == "USER"]
        if not users or users[-1] in ("root", "0"):
            yield f"{stage} runs as root"
        for name, words in steps:
            sources = [word for word in shlex.split(words) if not word.startswith("--")][:-1]
            if name == "COPY":
                yield from (f"{source} does not exist" for source in sources if not (ROOT / source).exists())
            elif name == "RUN" and "pip install" in words:
                pinned = "requirements.lock" in words and ("--requirement" in words or "==" in words)
                if not pinned and "--no-deps" not in words:
                    yield f"{words} installs what is not pinned"


def test_the_container_file_is_sound():
    text = (ROOT / "containers" / "Containerfile").read_text(encoding="utf-8")
    assert list(problems(text)) == []
    assert re.findall(r" AS (\w+)", text) == ["packages", "course", "hub"]
    for variable in re.findall(r"\$(\w+)", text):
        assert f"ARG {variable}=" in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("FROM python:latest AS a\nUSER x", "python:latest is not pinned to a version"),
        ("FROM python AS a\nUSER x", "python is not pinned to a version"),
        ("FROM a:1.2.3 AS a\nUSER x\nADD x y", "ADD is no instruction that we know"),
        ("FROM a:1.2.3 AS a\nUSER x\nUSER root", "a runs as root"),
        ("FROM a:1.2.3 AS a\nUSER x\nCOPY nothing \\\n  here/", "nothing does not exist"),
        ("FROM a:1.2.3 AS a\nUSER x\nRUN true && pip install jupyterhub", "installs what is not pinned"),
    ],
)
def test_what_is_wrong_with_a_container_file_is_found(text, problem):
    (found,) = problems(text)
    assert problem in found


def test_the_image_has_the_python_of_the_lock():
    text = (ROOT / "containers" / "Containerfile").read_text(encoding="utf-8")
    minor = int(re.search(r"python:3\.(\d+)", text)[1])
    assert 11 <= minor <= 13


def test_the_dev_container_is_a_stage_of_the_container_file():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    folder = ROOT / ".devcontainer"
    file = folder / settings["build"]["dockerfile"]
    assert (folder / settings["build"]["context"]).samefile(ROOT)
    text = file.read_text(encoding="utf-8")
    assert f"AS {settings['build']['target']}\n" in text
    assert settings["remoteUser"] == re.findall(r"(?m)^USER (\w+)", text)[-1]
    assert "--editable ." in settings["postCreateCommand"]


def test_binder_installs_the_lock_and_then_the_course():
    folder = ROOT / ".binder"
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (lock,) = (folder / line.removeprefix("-r ") for line in lines if line.startswith("-r "))
    assert lock.samefile(ROOT / "requirements.lock")
    assert re.fullmatch(r"python-3\.1[123]\n", (folder / "runtime.txt").read_text(encoding="utf-8"))
    build = folder / "postBuild"
    assert os.access(build, os.X_OK)
    steps = build.read_text(encoding="utf-8").splitlines()
    assert steps[0].startswith("#!")
    assert "pip install --no-cache-dir --no-deps --no-build-isolation --editable ." in steps[-2]
    assert steps[-1] == "moe-course start"


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_binders_script_is_read_by_bash():
    subprocess.run(["bash", "-n", str(ROOT / ".binder" / "postBuild")], check=True)


def test_what_binder_needs_without_the_network_is_pinned():
    """--no-build-isolation takes the build backend, and what it needs for --editable, from the environment."""
    pins = {Requirement(line).name for line in re.findall(r"(?m)^[^#].*", LOCK)}
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert {*backend, "editables"} <= pins


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_images_build():
    """Where an engine answers, and only in CI: it downloads half a gigabyte. `make images` does it by hand."""
    engine = next((name for name in ("docker", "podman") if _answers(name)), None)
    if engine is None:
        pytest.skip("neither docker nor podman answers here: the images are linted, not built")
    if not os.environ.get("CI"):
        pytest.skip("make images builds them")
    subprocess.run(["make", "images"], cwd=ROOT, check=True)
    run = [engine, "run", "--rm", "moe-course-course"]
    subprocess.run([*run, "moe-course", "doctor"], check=True)
    assert subprocess.check_output([*run, "id", "-u"], text=True).strip() != "0"


def _answers(engine):
    return (
        bool(shutil.which(engine)) and subprocess.run([engine, "info"], capture_output=True).returncode == 0
    )
