"""The seed of a cohort: drawn, kept where no learner gets to, the same for all; and a table of answers wins nothing.

Whoever knows the seed knows every input that the graders draw, and can answer from a table.
"""

import copy
import importlib
import inspect
import json
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from synthetic import ROOT, answer, write

from moe_course.command.cli import main
from moe_course.grading.cohort import grade_cohort
from moe_course.grading.cohort.ledger import seed_beside, stored_seed
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.judge import files
from moe_course.grading.judge.rendering import as_html, as_text
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import draw_seed, grade, seeded, without_running
from moe_course.grading.plugins import Judge

FUNCTIONS = [
    name
    for name, exercise in EXERCISES.items()
    if exercise.graded
    and not inspect.isclass(getattr(importlib.import_module(exercise.library), exercise.parts[0]))
]


class Table:
    """A function that was seen at work: it answers what it was asked then, and nothing else."""

    def __init__(self, function):
        self.function, self.answers = function, {}

    def record(self, *args, **kwargs):
        key = _key(args, kwargs)
        try:
            value = self.function(*args, **kwargs)
        except ValueError as error:
            self.answers[key] = error
            raise
        self.answers[key] = copy.deepcopy(value) if _detached(value) else value
        return value

    def answer(self, *args, **kwargs):
        found = self.answers[_key(args, kwargs)]
        if isinstance(found, ValueError):
            raise found
        return found


def _key(args, kwargs):
    return pickle.dumps([_plain(value) for value in (*args, *sorted(kwargs.items()))])


def _plain(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return type(value).__name__ if callable(value) else repr(value)


def _detached(value):
    leaves = value if isinstance(value, tuple | list) else [value]
    return not any(isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None for leaf in leaves)


def recorded(name, seed):
    """What the library answers when it is graded with this seed, as a table."""
    library = importlib.import_module(EXERCISES[name].library)
    parts = {part: getattr(library, part) for part in EXERCISES[name].parts}
    table = Table(parts[name])
    assert grade(name, LiveSubject(parts | {name: table.record}), seed).status == "passed"
    return LiveSubject(parts | {name: table.answer})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_table_recorded_with_one_seed_fails_with_the_next(name):
    verdict = grade(name, recorded(name, draw_seed()), drawn := draw_seed())
    assert (verdict.status, verdict.score <= verdict.max_score / 2) == ("failed", True), f"with seed {drawn}"


@pytest.mark.parametrize("name", ["ffn_params", "model_params", "expert_capacity", "positions_in_expert"])
def test_with_the_seed_it_was_recorded_with_a_table_wins(name):
    """Else the test above could not fail."""
    assert grade(name, recorded(name, 0), 0).status == "passed"


def test_the_numbers_of_one_criterion_do_not_tell_those_of_another():
    """crc32, which was used once, has the same state behind every seed of 32 bits: one criterion told all others."""
    drawn = [seeded(seed, "ffn_params", name).initial_seed() for seed in (0, 1, 1 << 40) for name in "ab"]
    assert len(set(drawn)) == len(drawn)
    assert len({draw_seed() for _ in range(100)}) == 100
    assert max(draw_seed() for _ in range(100)) > 1 << 45  # nobody tries that many


def gradebook(folder):
    return {"nbgrader": {"db_url": f"sqlite:///{folder / 'gradebook.db'}"}}


def test_nbgrader_draws_a_seed_once_for_a_gradebook(tmp_path):
    course, other = tmp_path / "course", tmp_path / "other"
    course.mkdir()
    other.mkdir()
    first = Judge()._seed(gradebook(course))
    assert Judge()._seed(gradebook(course)) == first == stored_seed(course / "gradebook.db.seed")
    assert Judge()._seed(gradebook(other)) != first
    assert stat.S_IMODE((course / "gradebook.db.seed").stat().st_mode) == 0o600
    assert Judge(seed=7)._seed(gradebook(course)) == 7


def test_several_graders_at_once_agree_on_the_seed(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(seed_beside, [tmp_path / "gradebook.db"] * 8))) == 1


def test_a_gradebook_that_is_no_file_wants_a_seed():
    with pytest.raises(ValueError, match="give `nbgrader autograde` one"):
        Judge()._seed({"nbgrader": {"db_url": "postgresql://host/gradebook"}})


def test_a_damaged_seed_is_not_replaced(tmp_path):
    (tmp_path / "gradebook.db.seed").write_text("{}")
    with pytest.raises(ValueError, match="seed is damaged"):
        seed_beside(tmp_path / "gradebook.db")


def test_no_configuration_in_the_repository_names_a_seed():
    assert "Judge.seed =" not in (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")


def test_a_cohort_draws_its_seed_and_a_regrade_repeats_it(tmp_path):
    write(tmp_path / "in" / "ada.ipynb", answer("ffn_params"))
    used = []

    def grader(submission, names, seed, limits):
        used.append(seed)
        return [without_running(name, "crashed", f"for the {len(used)}. time") for name in names]

    whole = {"assignment": "01_dense_ffn", "unsafe": True, "grader": grader}
    for out in ("one", "two"):
        grade_cohort.grade(tmp_path / "in", tmp_path / out, **whole)
    write(tmp_path / "in" / "ada.ipynb", answer("ffn_params", "return x + 2  # another long enough line"))
    grade_cohort.grade(tmp_path / "in", tmp_path / "one", resume=True, **whole)
    grade_cohort.regrade_diff(tmp_path / "in", tmp_path / "two", **whole)
    assert used[0] == used[2] != used[1] == used[3]
    assert stat.S_IMODE((tmp_path / "one" / "cohort.json").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "one" / "results.json").read_text())["seed"] == used[0]


@pytest.mark.parametrize("given", [[], ["--seed", "7"]])
def test_check_draws_its_seed_and_prints_it(monkeypatch, capsys, given):
    used = []
    monkeypatch.setattr(files, "check_files", lambda *args, seed: used.append(seed) or [])
    for _ in range(2):
        assert main(["check", "answer.py", *given]) == 0
    assert (len(set(used)) == 1) == bool(given)
    assert capsys.readouterr().out == "".join(f"--seed {seed} repeats this run exactly\n" for seed in used)


def test_feedback_does_not_show_the_seed():
    verdict = replace(without_running("ffn_params", "crashed"), seed=(seed := draw_seed()))
    assert str(seed) not in as_html(verdict) + as_text(verdict)
    assert str(seed) in as_html(verdict, with_seed=True)  # a live check, which is no grade
