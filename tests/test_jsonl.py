"""The log of JSON objects: whole after a kill, private where it has to be, replaced in one step."""

import errno
import os
import stat

import pytest

from moe_course.jsonl import Log


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log.jsonl")


def test_a_torn_line_is_left_out_and_the_next_one_whole(log):
    assert log.records() == []
    log.append({"n": 1})
    with open(log.path, "ab") as file:
        file.write(b'{"n": 2, "tor')
    assert log.records() == [{"n": 1}]
    log.append({"n": 3, "name": "Zoë\n"})
    assert log.records() == [{"n": 1}, {"n": 3, "name": "Zoë\n"}]


def test_what_is_no_object_is_left_out(log):
    log.path.write_bytes(b'[1]\n\n\xff\xfe\n"text"\n{"n": 1}\n')
    assert log.records() == [{"n": 1}]


def test_replacing_leaves_the_old_log_when_a_record_cannot_be_written(log):
    log.append({"n": 1})
    log.replace([record | {"again": True} for record in log.records()])
    assert log.records() == [{"n": 1, "again": True}]
    with pytest.raises(TypeError):
        log.replace([{"n": object()}])
    assert log.records() == [{"n": 1, "again": True}]


def test_a_full_disk_names_the_log(log, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*log\.jsonl'"):
        log.append({"n": 1})


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_who_may_read_it(tmp_path, private, mode):
    log = Log(tmp_path / "log.jsonl", private=private)
    log.append({"n": 1})
    log.replace(log.records())
    assert stat.S_IMODE(log.path.stat().st_mode) & ~0o022 == mode
