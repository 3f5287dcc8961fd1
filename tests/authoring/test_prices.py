"""The price of a mistake, and the names that second tellings get: both measured on the catalogue."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from synthetic import one_in

from moe_course.authoring.naming import SECOND_TELLINGS, named, shares
from moe_course.authoring.prices import CORE, FORM, STUB, Price, price, prices, stubs
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.judge.catalogue import entries
from moe_course.grading.judge.diagnosis import mistake, recorded
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("kind", "kept", "fair"),
    [
        (CORE, 5.9, True),
        (CORE, 6, False),
        (FORM, 8, True),
        (FORM, 7.9, False),
        (STUB, 1.9, True),
        (STUB, 2, False),
    ],
)
def test_what_is_fair(kind, kept, fair):
    assert Price("ffn_params", "x", kind, kept, 10, ()).fair is fair


def test_a_price_names_the_criteria_that_accept_the_mistake():
    right = price("ffn_params", "right", CORE, {"ffn_params": lambda d, f: 3 * d * f}, (1,))
    assert right.share == 1
    assert "count" in right.passes


@pytest.mark.slow
@pytest.mark.parametrize("name", one_in(3, EXERCISES))
def test_every_mistake_costs_what_it_is_worth(name):
    unfair = [f"{one.kind} {one.name} keeps {one.share:.0%}" for one in prices(name, ROOT) if not one.fair]
    assert not unfair


def narrowed(value):
    """The same answer, with its floating-point tensors rounded to bfloat16."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(torch.bfloat16)
    return tuple(map(narrowed, value)) if isinstance(value, tuple) else value


def functions_with_tensors():
    for name, exercise in EXERCISES.items():
        written = getattr(importlib.import_module(exercise.library), name)
        rounding_is_form = name != "quantize_int8"  # its rounded scale no longer gives w back: a wrong value
        returns = str(inspect.signature(written).return_annotation) if not isinstance(written, type) else ""
        if rounding_is_form and "Tensor" in returns:
            yield name, written


@pytest.mark.parametrize(("name", "written"), [*functions_with_tensors()])
def test_a_result_that_is_rounded_at_the_end_costs_what_form_costs(name, written):
    def rounded(*args, **kwargs):
        return narrowed(written(*args, **kwargs))

    found = price(name, "rounded", FORM, {name: rounded}, (1,))
    assert found.fair, f"keeps {found.share:.0%}, passes {found.passes}"


@pytest.mark.parametrize("name", one_in(3, EXERCISES))
def test_a_stub_keeps_less_than_a_fifth_and_gets_a_sentence_instead_of_a_name(name):
    for label, stub in stubs(EXERCISES[name]).items():
        verdict = grade(name, LiveSubject({name: stub}), seed=1)
        assert verdict.score < 0.2 * verdict.max_score, label
        assert verdict.diagnosis is None, (label, verdict.diagnosis)


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_has_second_tellings(name):
    known = {entry.name for entry in entries(ROOT / "tests" / "misconceptions", name)}
    told = {mistake(entry.name) for entry in entries(ROOT / SECOND_TELLINGS, name)}
    assert len(told) >= 4
    assert told <= known


@pytest.mark.full
def test_second_tellings_get_their_name():
    """At least 85 of 100 rightly, at most 2 wrongly; and no name whose misconception passes the first failure."""
    found = [one for name in EXERCISES for one in named(name, ROOT)]
    right, wrong = shares(found)
    assert right >= 0.85, [
        f"{one.exercise} {one.name}: {one.found or 'no name'}" for one in found if not one.right
    ]
    assert wrong <= 0.02, [f"{one.exercise} {one.name}: {one.found}" for one in found if one.wrong]
    for one in found:
        if one.found:
            records = recorded(EXERCISES[one.exercise].notebook)[one.exercise]
            twins = [record for label, record in records.items() if mistake(label) == one.found]
            assert any(one.first_failure in record["fails"] for record in twins), one
