"""The package is valid Python, without a warning, in every version that the lock covers and this machine has."""

import shutil
import subprocess

import pytest
from synthetic import ROOT

COMPILE = """\
import sys, warnings
from pathlib import Path
warnings.simplefilter("error")
assert sys.version_info[:2] == (3, int(sys.argv[1])), sys.version
for path in Path(sys.argv[2]).rglob("*.py"):
    compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
"""


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_the_package_compiles_without_a_warning(minor):
    python = shutil.which(f"python3.{minor}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no python3.{minor} here")
    said = subprocess.run(
        [python, "-c", COMPILE, str(minor), str(ROOT / "moe_course")], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
