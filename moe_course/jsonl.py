"""A log of JSON objects, one a line, that can be read while it is written to and after its writer was killed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from moe_course import files


class Log:
    """The log in the file `path`, which need not exist yet. With `private` only its owner may read the new file."""

    def __init__(self, path: Path, *, private: bool = False):
        self.path = path
        self.private = private

    def append(self, record: dict[str, Any]) -> None:
        """Add a line; it is on the disk when this returns. A line that a kill cut short is ended first.

        Raises OSError with the log's name where the disk does not take it.
        """
        text = _line(record)
        mode = 0o600 if self.private else 0o666
        with (
            files.naming(self.path),
            open(self.path, "ab+", opener=lambda path, flags: os.open(path, flags, mode)) as file,
        ):
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = b"\n" + text
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """The record of every whole line, in order; a line that was cut short is left out."""
        records = []
        if self.path.is_file():
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
        return [record for record in records if isinstance(record, dict)]

    def replace(self, records: list[dict[str, Any]]) -> None:
        """Write the log anew with these records; after a crash it is the old one or the new one."""
        files.write(self.path, b"".join(map(_line, records)), private=self.private)


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode()
