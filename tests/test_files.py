"""A file is replaced in one step, and its new content is on the disk before the old one goes."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moe_course import files

PACKAGE = Path(files.__file__).parent


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "progress.json"
    found.write_text("old")
    return found


def names(folder):
    return sorted(found.name for found in folder.iterdir())


def test_the_content_is_forced_to_disk_before_the_rename_and_the_folder_after_it(path, monkeypatch):
    """A power cut may keep a rename and lose what was written before it."""
    steps = []
    usual_sync, usual_replace = os.fsync, os.replace

    def fsync(descriptor):
        kind = (
            "folder"
            if stat.S_ISDIR(os.fstat(descriptor).st_mode)
            else f"{os.fstat(descriptor).st_size} bytes"
        )
        steps.append(kind)
        usual_sync(descriptor)

    def replace(source, target):
        steps.append("rename")
        usual_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write(path, "12345")
    assert steps == ["5 bytes", "rename", "folder"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_names_the_path_and_leaves_the_old_file(path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"No space left on device: '.*progress\.json'"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert names(path.parent) == ["progress.json"]


def test_an_error_keeps_its_class(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*missing/x\.json'"):
        files.write(tmp_path / "missing" / "x.json", "new")


def test_an_interrupted_writer_leaves_the_old_file(path):
    def interrupted():
        with files.writing(path) as file:
            file.write(b"half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (path.read_text(), names(path.parent)) == ("old", ["progress.json"])


def test_a_file_keeps_its_permissions_unless_it_is_private(path):
    path.chmod(0o640)
    files.write(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    files.write(path, "new", private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_file_has_the_permissions_that_open_gives(tmp_path):
    (tmp_path / "usual").touch()
    files.write(tmp_path / "new", "x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_was_there_can_be_kept(path):
    with files.writing(path, keep=path.with_name("before")) as file:
        file.write(b"ne")
        file.write(b"w")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.with_name("before").read_text() == "old"


def test_what_a_kill_leaves_is_found(path):
    program = (
        "import os, signal, sys; from pathlib import Path; from moe_course import files\n"
        "with files.writing(Path(sys.argv[1])) as file: os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", program, path], timeout=120)
    assert run.returncode == -9
    assert path.read_text() == "old"
    (left,) = files.leftovers(path)
    assert names(path.parent) == [left.name, "progress.json"]
    assert files.leftovers(path.with_name("other.json")) == []


def test_a_long_name_can_be_replaced(tmp_path):
    path = tmp_path / ("n" * 255)
    files.write(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_replaces_files_in_a_way_of_its_own(path):
    if path != Path(files.__file__):
        assert not re.search(
            r"\bos\.(replace|rename)\(|mkstemp|NamedTemporaryFile", path.read_text(encoding="utf-8")
        )
