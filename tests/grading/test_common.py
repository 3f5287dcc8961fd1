"""What grader files share: how values are compared, what a wrong core idea costs, and gradients of edited inputs."""

from __future__ import annotations

import pytest
import torch

from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.exercises.locate import make_graders_importable
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.exercises.rubric import criteria, criterion, rubric
from moe_course.grading.judge.subject import LiveSubject

make_graders_importable()

from graders.common import expect_count, expect_values, named, strided, together, whole  # noqa: E402
from graders.probes import vjp  # noqa: E402

WANT_E = torch.tensor([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    "got",
    [
        WANT_E,
        WANT_E.double(),
        WANT_E.bfloat16() * 1.003,
        [0.5, 0.25, 0.25],
        (torch.tensor(0.5), 0.25, torch.tensor(0.25, dtype=torch.float64)),
    ],
)
def test_values_of_any_type_are_compared(got):
    expect_values(got, WANT_E, "E")


@pytest.mark.parametrize(
    "got",
    [
        None,
        True,
        "0.5",
        0.5,
        [0.5, 0.25],
        [0.5, 0.25, 0.3],
        WANT_E[None],
        WANT_E > 0.3,
        [[0.5], 0.25, 0.25],
        [],
    ],
)
def test_wrong_values_shapes_and_junk_are_refused_and_shown_as_they_came(got):
    with pytest.raises(CheckFailed) as failed:
        expect_values(got, WANT_E, "E")
    assert failed.value.got is got


def test_a_number_stands_for_a_tensor_without_axes():
    expect_values(3, torch.tensor(3.0), "")
    with pytest.raises(CheckFailed):
        expect_values([3], torch.tensor(3.0), "")


def test_a_count_may_be_a_float_but_no_truth_value():
    for fine in (6, 6.0):
        expect_count(fine, 6, {})
    for wrong in (7, 6.5, True, "6", None, torch.tensor(6)):
        with pytest.raises(CheckFailed):
            expect_count(wrong, 1 if wrong is True else 6, {})


def test_together_holds_only_if_each_of_its_criteria_does():
    class Grader:
        @criterion(1, "first", hint="First?")
        def test_first(self, subject, rng):
            subject["first"]()

        @criterion(1, "second", hint="Second?")
        def test_second(self, subject, rng):
            subject["second"]()

        test_together = together(3, test_first, test_second)

    def wrong():
        raise CheckFailed("wrong")

    def fine():
        pass

    assert [(line.name, line.points) for line in criteria(Grader)] == [
        ("first", 1),
        ("second", 1),
        ("together", 3),
    ]
    Grader().test_together({"first": fine, "second": fine}, None)
    for subject in ({"first": wrong, "second": fine}, {"first": fine, "second": wrong}):
        with pytest.raises(CheckFailed):
            Grader().test_together(subject, None)


def test_strided_changes_how_values_are_stored_and_nothing_else():
    x_TD, n = torch.arange(12.0).reshape(3, 4), torch.tensor(2)
    for before, after in zip((x_TD, x_TD[0]), strided((x_TD, x_TD[0])), strict=True):
        assert torch.equal(before, after)
        assert not after.is_contiguous()
    assert strided((n, 5, "text")) == (n, 5, "text")


def test_small_helpers():
    assert named("a b", (1, 2)) == named(("a", "b"), (1, 2)) == {"a": 1, "b": 2}
    drawn = {whole(torch.Generator().manual_seed(seed), 2, 4) for seed in range(40)}
    assert drawn == {2, 3, 4}


def test_gradients_of_code_that_edits_its_input():
    """An edit in place costs the criterion that asks about it, not the one about gradients."""

    def edits_a_leaf(x_T):
        x_T *= 2
        return x_T.sum()

    def edits_what_autograd_saved(x_T):
        square_T = x_T**2
        x_T += 1
        return square_T.sum()

    for function, want in ((edits_a_leaf, [2.0, 2.0]), (edits_what_autograd_saved, [2.0, 6.0])):
        x_T = torch.tensor([1.0, 3.0])
        out = LiveSubject({"f": function}).run(vjp, "f", (x_T,), (torch.tensor(1.0),), (0,))
        assert out.error is None
        assert out.value[1][0].tolist() == want
        assert x_T.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("name", EXERCISES)
def test_a_title_speaks_of_gradients_only_where_the_exercise_has_some(name):
    titles = [line.title for _, line in rubric(name, hidden=False)]
    whole = [title for title in titles if title.startswith("the whole of it")]
    about = [title for title in titles if "gradient" in title and title not in whole]
    assert about or not any("values and gradients" in title for title in whole)
