"""Certificates: what somebody has passed, as text and as a page that prints on one sheet.

Learners make one for themselves; it says that nobody has issued it. An instructor issues one from the records of
`moe-course grade`. Its signature is an HMAC-SHA-256 over all of the page but the signature itself, with a key that
only the instructor has: whoever changes a letter of the page cannot make the signature fit, and only the holder of
the key can tell. A self-made page has a fingerprint in the same place, which proves nothing.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import html
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from moe_course import files
from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of, label
from moe_course.grading.judge import templates

if TYPE_CHECKING:
    from jinja2 import Template

    from moe_course.grading.cohort.ledger import Record

SHORTEST_KEY = 16  # bytes
_MARK = re.compile(r'(?<=<code id="mark">)[0-9a-f]{64}(?=</code>)')
_BLANK = "0" * 64


@dataclass(frozen=True)
class Part:
    """One notebook: the exercises that were passed, of how many, and the points where a grader gave them."""

    notebook: str
    passed: tuple[str, ...]
    exercises: int
    points: str = ""


@dataclass(frozen=True)
class Certificate:
    """Who has passed what. `student` is the name in the grader's records; empty if the certificate is self-made."""

    name: str
    parts: tuple[Part, ...]
    student: str = ""

    @property
    def counts(self) -> str:
        """How many exercises were passed, of all exercises of the course."""
        every = sum(len(exercises_of(notebook)) for notebook in NOTEBOOKS)
        return f"{sum(len(part.passed) for part in self.parts)} of the course's {every} exercises"


def graded(out: Path, student: str, name: str | None = None) -> Certificate:
    """What the records in a results folder of `moe-course grade` say about a student. name: what to write on it.

    Points are those for the answers, before a penalty for lateness. Raises ValueError where there is nothing to say.
    """
    from moe_course.grading.cohort.ledger import Ledger

    if not (out / "cohort.json").is_file():
        raise ValueError(f"{out} holds no results of `moe-course grade` (it has no cohort.json)")
    records = Ledger(out).records()
    mine = [record for record in records if record["student"] == student and record["status"] == "graded"]
    if not mine:
        known = sorted({record["student"] for record in records})
        others = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
        raise ValueError(f"no graded record of {student!r} in {out}; it has {others or 'none'}")
    parts = tuple(part for record in mine if (part := _part(record)).passed)
    if not parts:
        raise ValueError(f"{student} has passed no exercise yet, by the records in {out}")
    return Certificate(name or student, parts, student)


def _part(record: Record) -> Part:
    passed = tuple(verdict["exercise"] for verdict in record["verdicts"] if verdict["status"] == "passed")
    points = f"{record['score']:g} of {record['max_score']:g}"
    return Part(record["assignment"], passed, len(record["verdicts"]), points)


def as_text(certificate: Certificate) -> str:
    """The certificate for a terminal."""
    lines = [f"{certificate.name} has passed {certificate.counts}:"]
    lines += [f"  {part.notebook:<24}{len(part.passed):>2} of {part.exercises}" for part in certificate.parts]
    return "\n".join(
        [*lines, "", "Self-checked, not issued." if not certificate.student else "Issued by the grader."]
    )


def as_page(certificate: Certificate, key: bytes = b"") -> str:
    """The certificate as a page. key: that of the issuer, needed for an issued one, and for no other."""
    if bool(key) != bool(certificate.student):
        raise ValueError("an issued certificate needs a key, and a self-made one must not have one")
    blank = _template().render(c=certificate, day=f"{datetime.now(UTC):%Y-%m-%d}", mark=_BLANK)
    return _MARK.sub(_mark(blank, key), blank)


def verified(text: str, key: bytes) -> str:
    """The title of a page that was issued with this key. Raises ValueError for every other page, however similar."""
    marks = _MARK.findall(text)
    if len(marks) != 1:
        raise ValueError("this is no certificate: it bears no signature, or several")
    if hmac.compare_digest(_mark(_MARK.sub(_BLANK, text), b""), marks[0]):
        raise ValueError("this certificate is self-checked: nobody has issued it")
    if not hmac.compare_digest(_mark(_MARK.sub(_BLANK, text), key), marks[0]):
        raise ValueError("this page was changed after it was issued, or it was not issued with this key")
    title = re.search(r"<title>(.*?)</title>", text)
    return html.unescape(title[1]) if title else ""


def key_in(path: Path, *, make: bool = False) -> bytes:
    """The key in a file. make: write a new one if there is no such file; then only its owner can read it.

    Raises ValueError where the file holds no key.
    """
    if make and not path.exists():
        files.write(path, secrets.token_hex(32) + "\n", private=True)
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no key; the key is the file with which the certificate was issued"
        )
    key = path.read_bytes().strip()
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"{path} has {len(key)} bytes; a key has at least {SHORTEST_KEY}")
    return key


def _mark(blank: str, key: bytes) -> str:
    """The signature of a page with the key, or without one its fingerprint."""
    data = b"moe-course certificate\0" + blank.encode()
    return hmac.new(key, data, hashlib.sha256).hexdigest() if key else hashlib.sha256(data).hexdigest()


@functools.cache
def _template() -> Template:
    environment = templates.environment(Path(__file__).parent)
    environment.filters["labels"] = _labels
    return environment.get_template("certificate.html")


def _labels(names: Sequence[str]) -> str:
    return ", ".join(map(label, names))
