"""Whatever happens to a file, a good checkpoint is left, or an error says that none is."""

import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from moe_course.lm.training import checkpoint
from moe_course.lm.training.checkpoint import DamagedCheckpoint, load, previous, save


def state(step):
    return {"step": step, "w": torch.full((50,), float(step)), "nested": {"betas": (0.9, 0.95), "name": "x"}}


def assert_loads(path, step):
    loaded = load(path)
    assert loaded["step"] == step
    assert torch.equal(loaded["w"], state(step)["w"])
    assert loaded["nested"] == state(step)["nested"]


@pytest.fixture
def path(tmp_path):
    """Where steps 1 and 2 have been saved."""
    path = tmp_path / "checkpoint.pt"
    save(path, state(1))
    save(path, state(2))
    return path


def test_what_was_saved_comes_back_and_the_one_before_is_kept(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_loads(path, 2)
        assert_loads(previous(path), 1)
    assert sorted(p.name for p in path.parent.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "first byte": lambda path: flip_a_bit(path, 0),
    "a weight": lambda path: flip_a_bit(path, path.stat().st_size // 2),
    "the digest": lambda path: flip_a_bit(path, -1),
    "cut by one byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a few bytes": lambda path: os.truncate(path, 7),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.open("ab").write(b"x"),
    "another file": lambda path: path.write_text("not a checkpoint" * 100),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_the_one_before_it_is_used(path, damage):
    DAMAGE[damage](path)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged.* using checkpoint\.previous\.pt"):
        assert_loads(path, 1)


def test_where_both_are_damaged_the_error_names_both(path):
    for file in (path, previous(path)):
        DAMAGE["cut in half"](file)
    with pytest.raises(
        DamagedCheckpoint, match=r"checkpoint\.pt is .*previous\.pt is .*no checkpoint is left"
    ):
        load(path)


def test_where_there_is_none_the_error_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing\.pt"):
        load(tmp_path / "nothing.pt")
    assert not checkpoint.exists(tmp_path / "nothing.pt")


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_costs_nothing_that_was_saved(path, monkeypatch, call):
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", no_space)
    else:
        usual = Path.open

        def open_full(self, mode="r", *rest, **options):
            file = usual(self, mode, *rest, **options)
            return FullDisk(file) if "w" in mode else file

        monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        save(path, state(3))
    monkeypatch.undo()
    assert sorted(p.name for p in path.parent.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert_loads(path, 2)
    assert_loads(previous(path), 1)
    save(path, state(3))
    assert_loads(path, 3)


class FullDisk:
    """A file that takes a hundred bytes."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(bytes(content[:100]))
        no_space()


@pytest.mark.parametrize("renames_done", [0, 1])
def test_a_kill_between_the_renames_leaves_a_good_one(path, monkeypatch, renames_done):
    usual, calls = os.replace, []

    def replace(source, target):
        if len(calls) == renames_done:
            raise KeyboardInterrupt
        calls.append(target)
        usual(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(path, state(3))
    monkeypatch.undo()
    assert_loads(path, 2)
    save(path, state(4))
    assert_loads(path, 4)


def test_a_damaged_file_never_takes_the_place_of_the_good_one_before_it(path, monkeypatch):
    """Step 2 is damaged. A save that ends after its first rename must still leave step 1."""
    flip_a_bit(path, 100)
    usual = os.replace

    def replace(source, target):
        if Path(target) == path:
            raise KeyboardInterrupt
        usual(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(path, state(3))
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"using checkpoint\.previous\.pt"):
        assert_loads(path, 1)
    save(path, state(4))
    assert_loads(path, 4)
    assert_loads(previous(path), 1)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from moe_course.lm.training import checkpoint

path, renames = Path(sys.argv[1]), int(sys.argv[2])
usual = os.replace
def replace(source, target):
    global renames
    if not renames:
        os.kill(os.getpid(), signal.SIGKILL)
    renames -= 1
    usual(source, target)
os.replace = replace
checkpoint.save(path, {"step": 3, "w": torch.full((50,), 3.0), "nested": {"betas": (0.9, 0.95), "name": "x"}})
"""


@pytest.mark.parametrize(("first", "renames"), [(True, 0), (False, 0), (False, 1)])
def test_what_a_killed_process_had_written_in_full_is_found(tmp_path, first, renames):
    """Also where it was the first checkpoint: nothing has its name then, yet there is one."""
    path = tmp_path / "checkpoint.pt"
    if not first:
        save(path, state(1))
        save(path, state(2))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(renames)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.exists(path)
    assert_loads(path, 3)
    save(path, state(4))
    assert_loads(path, 4)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_half_a_file_of_a_killed_process_is_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, state(1))
    half = path.read_bytes()[:-7]
    path.unlink()
    (tmp_path / ".checkpoint.pt.0123.new").write_bytes(half)
    assert not checkpoint.exists(path)
    save(path, state(2))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_an_older_kill_left_does_not_hide_a_newer_checkpoint(path):
    left = path.with_name(".checkpoint.pt.0123.new")
    left.write_bytes(previous(path).read_bytes())
    os.utime(left, ns=(0, path.stat().st_mtime_ns - 1))
    assert_loads(path, 2)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    """Whoever can write a file can write its digest too: only tensors and plain values are unpickled."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    save(tmp_path / "checkpoint.pt", {"step": Harm()})
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "harm").exists()
