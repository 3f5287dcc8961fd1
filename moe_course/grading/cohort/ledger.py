"""What is on disk about a cohort, written so that a run can be killed at any moment.

    OUT/cohort.json              the cohort's seed, drawn once: never shown to students, so a grade can be repeated
    OUT/records/ASSIGNMENT/*.json    one file a student: verdicts, reasons, repairs, seed, key
    OUT/log.jsonl                what was graded when, by which version; only ever appended to
    OUT/pseudonyms.key           with which names become pseudonyms

All of it is readable by its owner only.

A record is written before its line in the log; a run that continues adds the line that a kill kept out. Where the
two tell different stories the record holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from moe_course import files
from moe_course.grading.judge.verdict import draw_seed
from moe_course.jsonl import Log

Record = dict[str, Any]


class Ledger:
    """The results of one cohort in the folder `out`, for one writer at a time."""

    def __init__(self, out: Path):
        self.out = out
        self.log = Log(out / "log.jsonl", private=True)

    @contextlib.contextmanager
    def opened(self, resume: bool, seed: int | None) -> Iterator[int]:
        """Hold the folder for a run and give the cohort's seed. Raises ValueError where it may not be written to.

        A folder with results is only continued (`resume`); nothing here ever empties one.
        """
        started = (self.out / "cohort.json").is_file()
        others = [path for path in self.out.glob("*") if not path.name.startswith(".")]
        if started and not resume:
            raise ValueError(
                f"{self.out} already holds results: --resume continues, another --out starts afresh"
            )
        if others and not started:
            raise ValueError(
                f"{self.out} is not empty and holds no cohort ({others[0].name}): give another --out"
            )
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file: give a folder as --out")
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.out / ".lock", timeout=0):
                yield self._seed(seed)
        except Timeout:
            raise ValueError(f"{self.out} is being written to by another run: wait for it") from None

    def seed(self) -> int:
        """The seed of a cohort that was graded before."""
        try:
            return stored_seed(self.out / "cohort.json")
        except FileNotFoundError:
            raise ValueError(f"{self.out}: no cohort was graded into this folder") from None
        except ValueError as error:
            raise ValueError(f"{error}: put its seed back from log.jsonl") from None

    def _seed(self, wanted: int | None) -> int:
        path = self.out / "cohort.json"
        if not path.is_file():
            return store_seed(path, draw_seed() if wanted is None else wanted)
        if wanted is not None and wanted != self.seed():
            raise ValueError(
                f"--seed {wanted}: this cohort is graded with seed {self.seed()}, and a cohort has one; "
                "another --out can have another"
            )
        return self.seed()

    def path(self, student: str, assignment: str) -> Path:
        """Where a record is: readable, and unique however the file system compares names."""
        readable = re.sub(r"[^\w@+-]", "_", student)[:60]
        unique = hashlib.sha256(f"{student}\0{assignment}".encode()).hexdigest()[:12]
        return (
            self.out
            / "records"
            / re.sub(r"[^\w-]", "_", assignment or "unknown")[:60]
            / f"{readable}-{unique}.json"
        )

    def find(self, student: str, assignment: str) -> Record | None:
        """The record of a submission; None where there is none that can be read."""
        return _load(self.path(student, assignment))

    def records(self) -> list[Record]:
        """Every record, by student and assignment."""
        found = [_load(path) for path in self.out.glob("records/*/*.json")]
        return sorted((r for r in found if r), key=lambda r: (r["student"], r["assignment"]))

    def keep(self, record: Record) -> None:
        """Write a record, then its line in the log."""
        path = self.path(record["student"], record["assignment"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(record, indent=1, allow_nan=False))
        self.log.append(_line(record))

    def retire(self, handed: dict[str, tuple[str, str]]) -> None:
        """Put aside the record of every file that is another learner's or assignment's by now: {file: (student,
        assignment)}. It stays on the disk as *.superseded, but counts no more."""
        wanted = set(handed.values())
        for record in self.records():
            whose = record["student"], record["assignment"]
            renamed = handed.get(record["file"], whose) != whose
            known_by_now = not record["assignment"] and any(student == whose[0] for student, _ in wanted)
            if whose not in wanted and (renamed or known_by_now):
                path = self.path(*whose)
                path.replace(path.with_suffix(".superseded"))

    def catch_up(self) -> None:
        """Log every record whose line was lost when a run was killed."""
        logged = {
            (line.get("student"), line.get("assignment"), line.get("graded")) for line in self.log.records()
        }
        for record in self.records():
            if (record["student"], record["assignment"], record["graded"]) not in logged:
                self.log.append(_line(record))

    def pseudonym(self, student: str) -> str:
        """A stable name that only the holder of the key can trace back: HMAC-SHA-256, 48 bits of it."""
        path = self.out / "pseudonyms.key"
        if not path.is_file():
            write(path, secrets.token_hex(32))
        key = bytes.fromhex(path.read_text(encoding="ascii"))
        return "student-" + hmac.new(key, student.encode(), hashlib.sha256).hexdigest()[:12]


def stored_seed(path: Path) -> int:
    """The seed in a file that `store_seed` wrote. Raises FileNotFoundError, or ValueError where it holds none."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["seed"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged") from None


def store_seed(path: Path, seed: int) -> int:
    """Keep a cohort's seed in a file that only its owner can read; returns the seed."""
    write(path, json.dumps({"seed": seed, "started": now()}, indent=1))
    return seed


def seed_beside(database: Path) -> int:
    """The seed of the course whose gradebook is the file `database`: drawn when it is first asked for, then kept.

    It lies beside the gradebook, where no learner gets to, and several graders at once agree on it.
    Raises ValueError where the file that holds it is damaged.
    """
    path = database.with_name(f"{database.name}.seed")
    with FileLock(f"{path}.lock"):
        try:
            return stored_seed(path)
        except FileNotFoundError:
            return store_seed(path, draw_seed())


def write(path: Path, text: str) -> None:
    """Replace a file in one step. Only its owner may read it."""
    files.write(path, text.encode("utf-8", "replace"), private=True)


def now() -> str:
    """The time in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _load(path: Path) -> Record | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _line(record: Record) -> dict[str, Any]:
    kept = (
        "graded",
        "student",
        "assignment",
        "status",
        "score",
        "max_score",
        "reason",
        "seed",
        "key",
        "version",
    )
    return {name: record[name] for name in kept}
