"""Mutants of the reference solutions, as mutmut makes them, and what the graders say of code that may never end.

mutmut (https://mutmut.readthedocs.io) keeps the operators: arguments left out or None, numbers, comparisons and
arithmetic changed, assignments emptied. They work on LibCST's trees of the source text.
"""

from __future__ import annotations

import ast
import difflib
import multiprocessing
import resource
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import libcst
import torch
from mutmut.mutation.mutators import mutation_operators

from moe_course.grading.exercises.locate import notebooks_dir
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.submission.attempts import Submission, read

SECONDS = 60.0  # for one answer with all seeds; a mutant that takes longer counts as rejected
MEMORY = 4 << 30  # bytes


def reference(notebook: str) -> Submission:
    """The reference solutions of a notebook."""
    return read(notebooks_dir().parent / "solutions" / notebook / f"{notebook}.ipynb")


def mutants_of(name: str, solutions: Submission) -> dict[str, str]:
    """{change: source} of every mutant of an exercise; the source defines the part that was changed."""
    found: dict[str, str] = {}
    for part in EXERCISES[name].parts:
        original = solutions.definitions[part]
        for mutant in mutants(original):
            label = change(original, mutant)
            while label in found:  # the same line stands in two places
                label += ", further down"
            found[label] = mutant
    return found


def mutants(source: str) -> list[str]:
    """Every version of `source` with one mutation, without those that do not parse."""
    module = libcst.parse_module(source)
    collected = _Code()
    module.visit(collected)
    changed = (
        module.deep_replace(node, mutated).code  # type: ignore[attr-defined]
        for node in collected.nodes
        for kind, operator in mutation_operators
        if isinstance(node, kind)
        for mutated in operator(node)
    )
    return list(dict.fromkeys(mutant for mutant in changed if _parses(mutant)))


class _Code(libcst.CSTVisitor):
    """The nodes that matter: neither annotations nor error messages, whose words no contract fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[libcst.CSTNode] = []

    def on_visit(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, libcst.Raise | libcst.Annotation):
            return False
        self.nodes.append(node)
        return True


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def change(original: str, mutant: str) -> str:
    """The lines that differ: "before → after"."""
    lines = list(difflib.ndiff(original.splitlines(), mutant.splitlines()))
    before, after = (" ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return f"{before} → {after}"


def namespace_of(solutions: Submission) -> dict[str, Any]:
    """The names that a notebook's set-up and solution cells define."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in solutions.cells:
        exec(cell, namespace)
    return namespace


def passes(
    name: str, cell: str, namespace: Mapping[str, Any], seeds: Sequence[int], seconds: float = SECONDS
) -> int:
    """With how many of the seeds the grader accepts what `cell` defines in `namespace`.

    The cell runs in a forked process. One that hangs, crashes or eats the memory passes with no seed.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_judge, args=(sender, name, cell, namespace, seeds))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(seconds) else 0
    except EOFError:
        return 0
    finally:
        process.kill()
        process.join()
        receiver.close()


def _judge(
    sender: Connection, name: str, cell: str, namespace: Mapping[str, Any], seeds: Sequence[int]
) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    own = dict(namespace)
    exec(cell, own)
    sender.send(sum(grade(name, LiveSubject(own), seed).status == "passed" for seed in seeds))
