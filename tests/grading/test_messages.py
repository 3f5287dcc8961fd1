"""What a learner reads of a failure: what happened and where, in plain words, and no more than is true."""

from dataclasses import replace

import pytest
import torch

from moe_course.grading.exercises.expect import CheckFailed, Shown, expect_tensor, expect_untouched, show
from moe_course.grading.exercises.protocol import Outcome, raised
from moe_course.grading.judge.diagnosis import Diagnosis, words
from moe_course.grading.judge.rendering import as_dict, as_html, as_text
from moe_course.grading.judge.replies import alike, similar
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade


def verdict_on(name, written, **more):
    return grade(name, LiveSubject({name: written, **more}), seed=1, hidden=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([torch.tensor(0.5), torch.tensor(0.25)], "[0.5, 0.25]  (a list of 2 0-dim tensors, float32)"),
        ([torch.tensor(3.5)], "[3.5]  (a list of 1 0-dim tensors, float32)"),
        (
            (torch.tensor([1, 2]), 7),
            "a tuple of 2:\n           [0] [1, 2]  (int64, shape (2,))\n           [1] 7",
        ),
        (torch.tensor(2.0), "2  (float32, 0-dim tensor)"),
        (torch.tensor([-0.0, 1.5]), "[0, 1.5]  (float32, shape (2,))"),
        (-0.0, "0.0"),
        ([-0.0, 2], "[0.0, 2]"),
        (("a",), "('a',)"),
        ([], "[]"),
    ],
)
def test_values_are_shown_whole(value, shown):
    assert show(value) == shown


def test_a_long_list_says_how_much_it_leaves_out():
    text = show([torch.tensor(float(n)) for n in range(25)])
    assert text.startswith("[0, 1, ")
    assert "19, and 5 more]" in text


def test_a_verdict_holds_the_text_of_a_reply_and_not_the_reply():
    """A reply may be as large as the wire lets it be, and a cohort has many."""
    verdict = verdict_on("swiglu_ffn", lambda x_TD, *weights: torch.zeros(3, 60_000))
    failures = [check.failure for check in verdict.checks if check.failure]
    assert len(failures) == len(verdict.checks)
    assert "60000" in str(failures[0])
    assert {type(value) for f in failures for value in (*f.given.values(), f.expected, f.got)} <= {
        Shown,
        type(None),
    }
    assert "of it)" in as_text(verdict)


def tokens_by_index(idx_TK, num_experts):
    counts = [0, 0]
    for row in idx_TK.tolist():
        for e in row:
            counts[e] += 1
    return torch.tensor(counts)


def test_an_exception_is_told_with_the_line_that_raised_it_and_without_hint_or_name():
    verdict = verdict_on("expert_load", tokens_by_index)
    first = next(check for check in verdict.checks if check.failure and check.failure.error)
    assert "IndexError: list index out of range" in first.message
    assert "in tokens_by_index, at: counts[e] += 1" in first.message

    def broken(d_model, d_ff):
        return {}["size"]

    verdict = verdict_on("ffn_params", broken)
    assert verdict.diagnosis is None
    for text in (as_text(verdict), as_html(verdict)):
        assert "your code raised KeyError" in text
        assert "return {}[" in text
        assert "Hint" not in text


def test_an_exception_without_a_message_has_its_line():
    def bare(d_model, d_ff):
        raise IndexError

    text = as_text(verdict_on("ffn_params", bare))
    assert "your code raised IndexError\n" in text
    assert "in bare, at: raise IndexError" in text


def test_only_a_stub_is_not_written_yet():
    def ffn_params(d_model, d_ff):
        raise NotImplementedError

    def unsupported():
        message = "\"histogram_cpu\" not implemented for 'Long'"
        error = NotImplementedError(message)
        raise error

    assert "ffn_params is not written yet" in as_text(verdict_on("ffn_params", ffn_params))
    text = as_text(verdict_on("ffn_params", lambda d_model, d_ff: unsupported()))
    assert "not written yet" not in text
    assert "your code raised NotImplementedError: \"histogram_cpu\" not implemented for 'Long'" in text


def test_torchs_message_is_no_stub_even_where_no_line_is_known():
    assert raised(NotImplementedError()).unwritten
    assert not raised(NotImplementedError("not implemented for 'Long'")).unwritten


def test_a_missing_earlier_part_is_named():
    def top_k_gate(probs_TE, k, renormalize=True):
        raise NotImplementedError

    def switch_gate(logits_TE):
        return top_k_gate(torch.softmax(logits_TE, -1), 1)

    text = as_text(verdict_on("switch_gate", switch_gate))
    assert "2.2 top_k_gate, which your code calls, is not written yet" in text
    assert "working(top_k_gate)" in text


def test_nothing_returned_gets_a_sentence():
    verdict = verdict_on("router_probs", lambda x_TD, w_DE: None)
    assert verdict.diagnosis is None
    text = as_text(verdict)
    assert "your code returned nothing (None)" in text
    assert "Hint" not in text


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (lambda x_TD, w_DE: torch.zeros(len(x_TD), w_DE.shape[1]), "answers 0 everywhere"),
        (lambda x_TD, w_DE: torch.full((len(x_TD), w_DE.shape[1]), 0.5), "answers 0.5 everywhere"),
        (lambda x_TD, w_DE: x_TD, "returns what it is given"),
        (lambda x_TD, w_DE: x_TD.clone(), "returns what it is given"),
    ],
)
def test_code_that_computes_nothing_is_told_so(written, sentence):
    verdict = verdict_on("router_probs", written)
    assert verdict.diagnosis is None
    assert sentence in as_text(verdict)
    assert "Hint" not in as_text(verdict)


def test_a_step_that_makes_zero_of_everything_is_asked_about():
    """It behaves like an empty gap, and the one misconception that does so has a question."""
    verdict = verdict_on("global_load", lambda counts_ME: (counts_ME.sum(0) // counts_ME.sum()).float())
    assert verdict.diagnosis is None
    assert (
        "Your code answers 0 everywhere, whatever it is given. Is the gap filled? If it is: Which kind of"
        in (as_text(verdict))
    )


def test_a_constant_truth_is_told_as_one():
    text = as_text(verdict_on("depends_on_batch", lambda layer, x_BSD, row: False))
    assert "Your code answers False everywhere" in text


def test_code_that_refuses_bad_arguments_computes_something():
    """It returns what it is given, and yet it is not an empty gap: the mistake has a name."""

    def active_matched_d_ff(d_ff_dense, top_k, num_shared=0):
        if d_ff_dense < 1 or top_k < 1 or num_shared < 0 or d_ff_dense % (top_k + num_shared):
            raise ValueError("these sizes make no sense")
        return d_ff_dense

    verdict = verdict_on("active_matched_d_ff", active_matched_d_ff)
    assert verdict.diagnosis.name == "as_wide_as_the_dense_layer"


def test_code_that_raises_is_no_constant():
    """It answers 1 where it answers at all."""

    def learning_rate(step, peak, warmup, total, floor):
        return [1][step]

    assert "everywhere" not in as_text(verdict_on("learning_rate", learning_rate))


def test_a_mistake_told_another_way_has_the_same_name():
    """The median of an even number of loads is the lower of the middle two, or lies between them."""
    for median in (torch.median, lambda load_E: load_E.quantile(0.5)):
        found = verdict_on("max_violation", lambda load_E, m=median: load_E.max() / m(load_E) - 1).diagnosis
        assert (found.name, found.fit) == ("compared_with_the_median", "whole")


def test_only_the_dtype_of_a_tensor_is_free_not_that_it_is_one():
    number, tensor = 0.5, {"dtype": "torch.float64", "shape": [], "values": [0.5]}
    assert similar(tensor, tensor | {"dtype": "torch.float32"})
    assert alike(number, tensor)
    assert not similar(number, tensor)


def test_an_overflow_may_end_as_nan_or_as_infinity():
    ends = [{"dtype": "torch.float32", "shape": [1], "values": [value]} for value in ("nan", "-inf", 1.0)]
    assert similar(ends[0], ends[1])
    assert not similar(ends[0], ends[2])


def test_a_refusal_of_another_type_is_told_with_its_line():
    def split_experts(d_ff, num_experts, top_k, granularity):
        if d_ff % granularity:
            raise AssertionError
        return d_ff // granularity, num_experts * granularity, top_k * granularity

    text = as_text(verdict_on("split_experts", split_experts))
    assert "these arguments should raise ValueError, but your code raised AssertionError\n" in text
    assert "in split_experts, at: raise AssertionError" in text


def test_a_named_mistake_takes_the_place_of_the_hint():
    verdict = verdict_on("router_probs", lambda x_TD, w_DE: (x_TD.float() @ w_DE.float()).softmax(0))
    assert verdict.diagnosis.name == "softmax_over_tokens"
    text = as_text(verdict)
    assert "This behaves like the mistake “softmax over tokens”." in text
    assert "Hint" not in text
    assert as_dict(verdict)["diagnosis"]["fit"] == "whole"


def test_without_a_name_there_is_the_hint():
    verdict = verdict_on("router_probs", lambda x_TD, w_DE: (x_TD.float() @ w_DE.float()).abs().cumsum(1))
    assert verdict.diagnosis is None
    assert "Hint: " in as_text(verdict)
    assert "<b>Hint:</b>" in as_html(verdict)


def test_points_that_grading_decides_are_not_lost_points():
    passed = verdict_on("ffn_params", lambda d_model, d_ff: 3 * d_model * d_ff)
    visible = passed.max_score - passed.undecided
    line = as_text(passed).splitlines()[0]
    assert line.startswith(
        f"1.2 ffn_params: passed, all {visible:g} visible points; {passed.undecided:g} more "
    )
    assert line.endswith("decided at grading")


def test_names_of_classes_are_words_too():
    assert words("AlwaysRenormalised") == words("always_renormalised") == "always renormalised"
    assert words("Float32ComesBack") == "float32 comes back"
    assert words("AuxInAList") == "aux in a list"
    assert words("times_ln_2") == "times ln 2"


@pytest.mark.parametrize(
    ("fit", "said"), [("part", "there is another one besides"), ("near", "though not on all")]
)
def test_a_match_that_leaves_something_over_says_so(fit, said):
    verdict = verdict_on("ffn_params", lambda d_model, d_ff: 2 * d_model * d_ff)
    object.__setattr__(verdict, "diagnosis", Diagnosis("two_matrices", "How many are there?", fit))
    assert said in as_text(verdict)
    assert said in as_html(verdict)


def test_a_number_is_wrong_and_has_no_first_place():
    with pytest.raises(CheckFailed, match=r"^the loss is wrong"):
        expect_tensor(torch.tensor(1.0), torch.tensor(2.0), "", what="the loss")
    with pytest.raises(CheckFailed, match=r"should be a 0-dim tensor, not of shape \(1,\)"):
        expect_tensor(torch.ones(1), torch.tensor(1.0), "", what="the loss")


def test_an_edited_input_is_shown_before_and_afterwards():
    before, after = torch.tensor([1.0]), torch.tensor([2.0])
    with pytest.raises(CheckFailed) as failed:
        expect_untouched(Outcome(inputs=(after,)), (before,), ("x_T",))
    assert "x_T before = [1]" in str(failed.value)
    assert "x_T afterwards = [2]" in str(failed.value)


def test_what_fails_for_the_same_cause_was_not_reached():
    """An exception, nothing returned, another type: one fault, which is told once; the rest stays neutral."""
    import numpy

    def raising(logits_TE, k):
        return logits_TE.no_such_method()

    def forgetful(logits_TE, k):
        logits_TE.softmax(1)

    def in_numpy(logits_TE, k):
        return numpy.zeros(tuple(logits_TE.shape))

    for written in (raising, forgetful, in_numpy):
        verdict = verdict_on("sparse_gates", written)
        text = as_text(verdict)
        failed = [result for result in verdict.checks if result.status == "failed"]
        assert len(failed) > 2
        assert text.count("✗") == 1
        assert text.count("not reached, 0 of") == len(failed) - 1
        assert as_html(verdict).count("not reached, 0 of") == len(failed) - 1
        assert verdict.score == sum(r.criterion.points for r in verdict.checks if r.status == "passed")


def test_faults_of_different_causes_are_all_marked():
    verdict = verdict_on("sparse_gates", lambda logits_TE, k: logits_TE.cos())
    assert verdict.diagnosis is None
    assert as_text(verdict).count("✗") == sum(result.status == "failed" for result in verdict.checks) > 1
    assert "not reached" not in as_text(verdict)


def test_an_array_instead_of_a_tensor_is_asked_about_its_type():
    import numpy

    verdict = verdict_on("sparse_gates", lambda logits_TE, k: numpy.zeros(tuple(logits_TE.shape)))
    text = as_text(verdict)
    assert "should be a tensor, not numpy.ndarray" in text
    assert "Hint: Of which type is what your code returns" in text
    assert "behaves like" not in text


def test_what_a_named_mistake_fails_as_well_is_not_held_against_the_code_twice():
    verdict = verdict_on("sparse_gates", lambda logits_TE, k: logits_TE.softmax(1))
    failed = [result for result in verdict.checks if result.status == "failed"]
    assert {result.criterion.name for result in failed} <= {*verdict.diagnosis.fails}
    assert as_text(verdict).count("✗") == 1
    assert as_text(verdict).count("not reached") == len(failed) - 1 > 1
    other = replace(verdict, diagnosis=replace(verdict.diagnosis, fails=(failed[0].criterion.name,)))
    assert as_text(other).count("✗") == len(failed)  # a second fault is marked
    near = replace(verdict, diagnosis=replace(verdict.diagnosis, fit="near"))
    assert as_text(near).count("✗") == len(failed)


@pytest.mark.parametrize(
    ("name", "advice"), [("F", "import torch.nn.functional as F"), ("np", "import numpy as np")]
)
def test_a_missing_import_is_named(name, advice):
    written = {}
    exec(f"def sparse_gates(logits_TE, k):\n    return {name}.softmax(logits_TE, 1)", written)
    assert f"put `{advice}` above your function" in as_text(
        verdict_on("sparse_gates", written["sparse_gates"])
    )
    exec("def sparse_gates(logits_TE, k):\n    return gates", written)
    assert "above your function" not in as_text(verdict_on("sparse_gates", written["sparse_gates"]))


def test_a_truth_is_not_taken_for_a_number_that_came_back():
    verdict = verdict_on("depends_on_batch", lambda layer, x_BSD, row: True)
    assert "returns what it is given" not in verdict.reason
    assert "answers True everywhere" in verdict.reason
