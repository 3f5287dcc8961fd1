"""The learner's state: what two kernels write at once is all there, and nothing is lost."""

import json
import subprocess
import sys

import pytest

from moe_course.lesson import home

WRITER = """
import sys
from pathlib import Path
from moe_course.lesson import home
for n in range(60):
    home.update_json(Path(sys.argv[1]), lambda kept: {**kept, f"{sys.argv[2]}{n}": n})
"""


def test_two_kernels_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "progress.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "ab"]
    assert [writer.wait(300) for writer in writers] == [0, 0]
    assert set(home.read_json(path)) == {f"{name}{n}" for name in "ab" for n in range(60)}


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "\udcff"])
def test_a_damaged_file_is_kept_beside_the_new_one(tmp_path, text):
    path = tmp_path / "progress.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    home.update_json(path, lambda kept: {**kept, "b": 2})
    assert json.loads(path.read_text()) == {"b": 2}
    kept = path.with_name("progress.json.damaged").read_bytes()
    assert kept == text.encode("utf-8", "surrogateescape")
    home.update_json(path, lambda kept: {**kept, "c": 3})
    assert json.loads(path.read_text()) == {"b": 2, "c": 3}


def test_without_a_place_to_write_it_is_the_callers_to_say(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        home.update_json(tmp_path / "file" / "progress.json", dict)
