"""The graders travel with the package: an installed wheel checks notebooks far from any checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from synthetic import ROOT


def build(target, source, folder):
    """Build a wheel or an sdist from a folder of sources; its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """A function that runs Python with the wheel's contents, in a folder of its own that holds notebook 01 solved."""
    base = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(base / "site")
    folder = base / "elsewhere"
    folder.mkdir()
    shutil.copy(ROOT / "solutions" / "01_dense_ffn" / "01_dense_ffn.ipynb", folder / "mine.ipynb")

    def run(*command):
        env = {**os.environ, "PYTHONPATH": str(base / "site")}
        return subprocess.run(
            [sys.executable, "-P", *command], cwd=folder, env=env, capture_output=True, text=True
        )

    where = run("-c", "import moe_course; print(moe_course.__file__)").stdout
    assert str(base) in where, "the checkout is imported, not the wheel"
    return run


def test_the_sdist_gives_the_same_wheel(wheel, tmp_path):
    sdist = build("sdist", ROOT, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (sources,) = (tmp_path / "sources").iterdir()
    again = build("wheel", sources, tmp_path / "again")
    contents = [
        {
            item.filename: item.CRC
            for item in zipfile.ZipFile(path).infolist()
            if "RECORD" not in item.filename
        }
        for path in (wheel, again)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 200


def test_it_checks_a_notebook(elsewhere):
    said = elsewhere("-m", "moe_course.command.cli", "check", "mine.ipynb", "--json")
    verdicts = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(verdicts) == 6, said.stderr
    assert {verdict["status"] for verdict in verdicts} == {"passed"}
    assert said.returncode == 0


def test_it_names_mistakes_and_knows_the_stubs(elsewhere):
    said = elsewhere(
        "-c",
        "from moe_course.grading.judge.live import examine\n"
        "def ffn_params(d_model, d_ff):\n    return 2 * d_model * d_ff\n"
        "print(examine(ffn_params, namespace={}).diagnosis.name)\n"
        "from moe_course.grading.submission import attempts\n"
        "print(len(attempts._stubs()) > 10)",
    )
    assert said.stdout.split() == ["two_matrices", "True"], said.stderr


def test_it_hands_out_the_notebooks(elsewhere):
    said = elsewhere("-m", "moe_course.command.cli", "start", "work")
    assert said.returncode == 0, said.stderr
    assert "work/01_dense_ffn/01_dense_ffn.ipynb: ready" in said.stdout
    assert "Next: 0.1 tokens_per_expert" in elsewhere("-m", "moe_course.command.cli", "status", "work").stdout
