"""The clinic of notebook 11: every patient shows the symptom that its record tells, the stub is worth little, and
nothing that a learner reads before the hints tells the fault."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
import torch

from moe_course.authoring import stubs
from moe_course.grading.exercises.registry import exercises_of
from moe_course.grading.exercises.rubric import criteria, grader_of
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
from moe_course.lesson import clinic, collapse, instruments, timing
from moe_course.moe import clinic as right
from moe_course.moe import depends_on_batch, depends_on_future
from moe_course.systems import parallel_gradients

ROOT = Path(__file__).parents[2]
PATIENTS = [exercise.name for exercise in exercises_of("11_clinic")]
EIGHT = range(8)
RELEASED = nbformat.read(ROOT / "notebooks/11_clinic/11_clinic.ipynb", as_version=4)
AUTHORED = nbformat.read(ROOT / "solutions/11_clinic/11_clinic.ipynb", as_version=4)


# --------------------------------------------------------------------------------------------------- the stubs


@pytest.mark.parametrize("name", PATIENTS)
def test_the_broken_code_scores_less_than_a_fifth_and_keeps_its_partial_virtue(name):
    """It is working code: it passes something, and no more."""
    for seed in (1, 2, 3):
        verdict = grade(name, LiveSubject({name: clinic.admitted(name)}), seed)
        assert verdict.status == "failed"
        assert verdict.score < 0.2 * verdict.max_score, [c.criterion.name for c in verdict.checks]


@pytest.mark.parametrize("name", PATIENTS)
def test_the_released_cell_is_code_that_runs_and_tells_no_marker(name):
    cell = next(cell for cell in RELEASED.cells if cell.id == name)
    assert "NotImplementedError" not in cell.source
    assert "###" not in cell.source
    answer, stub = stubs.split(next(cell for cell in AUTHORED.cells if cell.id == name).source)
    assert answer
    assert stub


def test_a_stub_of_ones_own_is_released_with_the_indentation_of_its_place():
    lines = ["return y + 1", "### STUB", "# if y:", "#     return y", "### END SOLUTION"]
    cell = "\n    ".join(["def f(x):", "y = x", "### BEGIN SOLUTION", *lines])
    assert stubs.split(cell) == (["    return y + 1"], ["if y:", "    return y"])
    assert stubs.split("x = 1") == ([], [])


GIVEAWAYS = {
    "gate": r"renormali[sz]|p ?/ ?p\b|always 1|constant|task('s)? gradient",
    "route_with_loss": r"twice|second softmax|double softmax|two softmax|already (a )?(probab|softmax)",
    "biased_gate": r"unbiased|biased (values|weights|scores)|without the bias|subtract",
    "BalancedGate": r"hook|recompute|evaluation pass|checkpoint|counted twice|is_grad_enabled|self\.training",
    "reduce_gradients": r"divid(e|ing) by|replicas|leaves a factor",
    "clip_gradients": r"own rank|squares\*? of|mean, a sum",
    "route_in_bf16": r"upcast|product in|before the product|bf16 logits|bfloat16 logits|round(s|ed) logits",
    "context_router": r"future|prefix|later (token|word|position)s? (is|are) (read|seen)|whole sequence|leak",
    "decode_experts": r"idle|without tokens are|unique|only the (hit|used)|every expert is visited",
}
"""What would tell the fault of an exercise, in the text above its check."""
ORDERED = ("-instruments", "-order")  # an instrument may be named after what it finds


def shown_before_the_check(name: str) -> str:
    """What a learner reads of a case up to its check: from its heading on, folded records included."""
    ids = [cell.id for cell in RELEASED.cells]
    number = next(one.number for one in exercises_of("11_clinic") if one.name == name).split(".")[1]
    begin, end = ids.index(f"case{number}-why"), ids.index(f"check_{name}")
    texts = [c.source for c in RELEASED.cells[begin:end] if not c.id.endswith((*ORDERED, "-predict"))]
    return "\n".join(texts)


@pytest.mark.parametrize("name", PATIENTS)
def test_nothing_tells_the_fault_before_the_hints(name):
    titles = [line.title for line in criteria(grader_of(name))]
    names = [line.name for line in criteria(grader_of(name))]
    for text in (shown_before_the_check(name), *titles, *names):
        found = re.search(GIVEAWAYS[name], text, flags=re.IGNORECASE)
        assert found is None, found


def test_the_search_for_giveaways_would_find_one():
    """The third hint of every case, which tells the cause, is found by the same search."""
    for name in PATIENTS:
        number = next(one.number for one in exercises_of("11_clinic") if one.name == name).split(".")[1]
        (helped,) = [cell.source for cell in RELEASED.cells if cell.id == f"help-11-{number}"]
        assert re.search(GIVEAWAYS[name], helped, flags=re.IGNORECASE), name
        rungs = re.findall("<summary>(.*?)</summary>", helped)
        assert rungs[:2] == ["A nudge", "What to compare"]
        assert rungs[-2:] == ["Pseudocode", "The solution"]


@pytest.mark.parametrize("number", [one.number.split(".")[1] for one in exercises_of("11_clinic")])
def test_a_case_has_a_folded_record_a_diagnosis_and_a_folded_story(number):
    ids = [cell.id for cell in RELEASED.cells]
    parts = ["why", "run", "instruments", "order", "predict", "again", "verdict", "story"]
    places = [ids.index(f"case{number}-{part}") for part in parts]
    assert places == sorted(places)
    for part in ("why", "story"):
        assert "<details>" in RELEASED.cells[ids.index(f"case{number}-{part}")].source


# ------------------------------------------------------------------------------------------------- the symptoms


def test_case_1_looks_balanced_and_is_worse_than_no_balancing_at_all():
    sick = clinic.with_balancing(clinic.admitted("gate"), seeds=EIGHT)
    well = clinic.with_balancing(right.gate, seeds=EIGHT)
    unbalanced = collapse.train(collapse.Arm(), EIGHT)
    assert not sick.dead.any()
    assert unbalanced.dead.min() >= 3
    assert (well.final_loss < sick.final_loss).all()
    assert sick.final_loss.median() > unbalanced.final_loss.median() > well.final_loss.median()
    gradients = clinic.task_gradients(clinic.admitted("gate"), k=1)
    assert gradients["router"] == 0.0
    assert gradients["experts"] > 0.01
    assert clinic.task_gradients(clinic.admitted("gate"), k=2)["router"] > 1e-3
    assert clinic.task_gradients(right.gate, k=1)["router"] > 1e-3


def test_case_2_logs_a_loss_near_1_while_experts_die():
    sick, logged_BS = clinic.with_loss_of(clinic.admitted("route_with_loss"), seeds=EIGHT)
    well, _ = clinic.with_loss_of(right.route_with_loss, seeds=EIGHT)
    assert logged_BS.max() < 1.5
    assert (sick.dead > well.dead).all()
    assert (sick.final_loss > well.final_loss).all()
    small, large = (
        clinic.loss_gradients(f) for f in (clinic.admitted("route_with_loss"), right.route_with_loss)
    )
    ratios = [large[size] / small[size] for size in large]
    assert ratios[0] > 3
    assert ratios[1] > 5 * ratios[0]  # no coefficient mends both
    assert clinic.collapsed_loss(right.route_with_loss) == pytest.approx(8, abs=0.01)
    assert clinic.collapsed_loss(clinic.admitted("route_with_loss")) < 2.5


@pytest.mark.slow
def test_case_3_costs_a_served_model_its_quality():
    for model in clinic.trained_with_bias():
        trained = model.loss(clinic.reference_gate)
        assert model.loss(clinic.admitted("biased_gate")) > 1.3 * trained
        assert model.loss(right.biased_gate) == pytest.approx(trained, abs=1e-6)


def test_case_3_weighs_wrong_and_routes_right():
    scores_TE, bias_E = torch.tensor([[0.9, 0.5, 0.2, 0.1]]), torch.tensor([12.0, 12.1, 11.9, 12.0])
    theirs, ours = (
        clinic.admitted("biased_gate")(scores_TE, bias_E, 2),
        clinic.reference_gate(scores_TE, bias_E, 2),
    )
    assert sorted(theirs[1][0].tolist()) == sorted(ours[1][0].tolist())
    assert theirs[0].sum() == pytest.approx(1)
    assert (theirs[0].max() - ours[0].max()).abs() > 0.1


def test_case_4_balances_something_else_than_the_training_load():
    """On eight seeds; and without tests in between there is nothing to see."""
    for seed in EIGHT:
        sick, well = (
            clinic.life_of(make, seed, 100) for make in (clinic.admitted("BalancedGate"), right.BalancedGate)
        )
        assert sick.violation[-30:].mean() > 1.5 * well.violation[-30:].mean()
    untested = [
        clinic.life_of(make, 0, 100, tested=False).violation
        for make in (clinic.admitted("BalancedGate"), right.BalancedGate)
    ]
    assert torch.equal(*untested)
    assert "640" in clinic.counters(clinic.admitted("BalancedGate"))
    assert clinic.counters(right.BalancedGate, checkpointed=True).count("192") == 2


def test_case_4_the_sign_rule_forgives_a_uniform_doubling():
    """As the story says: n and 2n move the bias alike."""
    gate = right.BalancedGate(3, 4, 2)
    gate.counts_E += torch.tensor([1, 5, 2, 4])
    gate.update_bias(0.1)
    once = gate.bias_E.clone()
    gate.bias_E.zero_()
    gate.counts_E += 2 * torch.tensor([1, 5, 2, 4])
    gate.update_bias(0.1)
    assert torch.equal(gate.bias_E, once)


def test_case_5_scales_experts_by_the_ranks_that_share_them_and_adam_hides_it():
    for parallel in (1, 2, 4):
        sick = clinic.gradients_on_ranks(clinic.admitted("reduce_gradients"), parallel)
        assert sick == {"router": 1.0, "experts": pytest.approx(parallel, abs=2e-3)}
    well = clinic.gradients_on_ranks(parallel_gradients.reduce_gradients, 2)
    assert well == {"router": 1.0, "experts": pytest.approx(1, abs=2e-3)}
    for seed in EIGHT:
        adam, sgd = (
            [float(clinic.trained_with_factor(factor, kind, seed, 60)[-1]) for factor in (1, 2)]
            for kind in ("adam", "sgd")
        )
        assert abs(adam[0] - adam[1]) < 0.2 * abs(sgd[0] - sgd[1])


def test_case_6_lets_copies_drift_apart():
    for seed in (0, 1, 2):
        sick = clinic.clipped_on_ranks(clinic.admitted("clip_gradients"), seed, steps=8)
        assert sick.distance_S[-1] > 0.01
        assert (sick.norm_RS[0] < sick.norm_RS[1]).all()
    well = clinic.clipped_on_ranks(parallel_gradients.clip_gradients, 0, steps=8)
    assert well.distance_S.max() == 0
    torch.testing.assert_close(well.norm_RS[0], well.true_S)


def test_case_7_hides_where_experts_are_few():
    sick = clinic.admitted("route_in_bf16")
    for seed in EIGHT:
        few, many = clinic.moved(sick, 8, 2, seed), clinic.moved(sick, 64, 8, seed)
        assert few < 0.004
        assert 0.01 < many < 0.06
        assert clinic.moved(right.route_in_bf16, 64, 8, seed) == 0


def test_case_8_beats_the_entropy_of_its_source_and_writes_worse():
    for seed in EIGHT:
        sick = clinic.on_random_text(clinic.admitted("context_router"), seed)
        assert sick.whole < sick.chance - 0.05
        assert sick.by_word > sick.chance + 0.05
    well = clinic.on_random_text(right.context_router, 0)
    assert well.whole == pytest.approx(well.by_word, abs=1e-5)
    assert well.whole > well.chance
    x_BSD, router_DE = torch.randn(2, 6, 16), torch.randn(16, 8)
    for router, answer in ((clinic.admitted("context_router"), True), (right.context_router, False)):
        assert depends_on_future(lambda x, router=router: router(x, router_DE), x_BSD, 2) is answer
        assert not depends_on_batch(lambda x, router=router: router(x, router_DE), x_BSD, 0)


def test_case_9_works_for_experts_that_exist_and_not_for_those_in_use():
    sick = clinic.work_by_experts(clinic.admitted("decode_experts"), (8, 128))
    well = clinic.work_by_experts(right.decode_experts, (8, 128))
    assert sick[128] > 10 * sick[8]
    assert well[128] == well[8]
    arguments = clinic.decoding()
    assert timing.products(lambda: clinic.admitted("decode_experts")(*arguments)) == 3 * 128
    assert timing.products(lambda: right.decode_experts(*arguments)) == 3 * 8


def test_the_walk_ends_in_fewer_bytes():
    """Indexing a stack expert by expert moves many times the bytes of unbinding it once."""
    names = {"walk-sliced", "walk-yours"}
    namespace = {"torch": torch}
    for cell in AUTHORED.cells:
        if cell.id in names:
            exec(cell.source, namespace)
    moved = {
        name: timing.bytes_moved(clinic.training_step(namespace[name], experts=64, tokens=64))
        for name in ("sliced", "yours", "moe_loop")
    }
    assert moved["sliced"] == moved["yours"] > 8 * moved["moe_loop"]


# ---------------------------------------------------------------------------------------------- the instruments


def test_every_instrument_of_the_notebook_runs(monkeypatch):
    """The cells of instruments, with everything they name trained for few steps, and each instrument ordered."""
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")
    from moe_course.viz import style

    monkeypatch.setattr(style, "publish", lambda markup, text: None)
    namespace = {"__name__": "notebook"}
    ordered = 0
    for cell in AUTHORED.cells:
        if cell.cell_type == "code" and re.search(
            "^setup|^ward|-(run|table|sliced|profile|instruments)$", cell.id
        ):
            exec(cell.source, namespace)
        if cell.id.endswith("-instruments"):
            for name, run in namespace[cell.id.removesuffix("-instruments")].items():
                assert run() is not None, name
                ordered += 1
    assert ordered > 20


def test_an_instrument_is_ordered_by_name(capsys):
    clinic.order(None, {"a": lambda: 7})
    assert '"a"' in capsys.readouterr().out
    clinic.order("a", {"a": lambda: 7})
    assert capsys.readouterr().out == "a:\n7\n"
    with pytest.raises(ValueError, match="'b'"):
        clinic.order("b", {"a": lambda: 7})


def test_only_patients_are_admitted():
    with pytest.raises(ValueError, match="02_topk_routing"):
        clinic.admitted("top_k_gate")


def test_a_diagnosis_is_compared_only_after_the_check(capsys, monkeypatch):
    clinic.verdict("gate", "no-such-key", 1)
    assert "once gate has passed" in capsys.readouterr().out


def test_gradient_norms_keep_none_apart_from_zero():
    a, b, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    norms = instruments.gradient_norms((3 * a + 0 * b).sum(), {"a": a, "b": b, "c": c})
    assert norms["a"] == pytest.approx(3 * 2**0.5)
    assert norms["b"] == 0
    assert norms["c"] != norms["c"]  # nan: the graph does not lead there
    assert a.grad is None


def test_against_float64_compares_choices_as_sets():
    def function(x):
        return x.sum(dim=-1), x.topk(2).indices

    gap, share = instruments.against_float64(function, torch.rand(5, 4))
    assert gap < 1e-5
    assert share == 0


def test_hot_spots_names_what_was_called():
    table = instruments.hot_spots(lambda: torch.ones(3, 3) @ torch.ones(3, 3), rows=50)
    assert re.search(r"aten::mm +1 ", table)


def test_the_bundle_of_the_clinic_names_no_mistake_in_plain_text():
    """The recorded names are packed there; in the checkout they are plain, for those who write the course."""
    recorded = json.loads((ROOT / "tests/graders/recorded/11_clinic.json").read_text(encoding="utf-8"))
    assert recorded.keys() == set(PATIENTS)
