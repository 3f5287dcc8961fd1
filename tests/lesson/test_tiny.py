import pytest
import torch

from moe_course.lesson import tiny
from moe_course.moe import (
    biased_top_k,
    expert_counts,
    load_balancing_loss,
    max_violation,
    moe_loop,
    switch_gate,
    top_k_gate,
    update_bias,
)

SEEDS = (0, 1, 2)
SHORT = tiny.TinyConfig(steps=5)


@pytest.fixture(scope="module")
def arms():
    """Notebook 02's experiment, as long as there: {gate: a run for each seed}."""
    gates = {"sick": tiny.renormalised_top1, "cured": switch_gate}
    return {name: [tiny.train(gate, seed) for seed in SEEDS] for name, gate in gates.items()}


def sorted_out(table_GE):
    """Share of its words that a dialect sends to its favourite expert, mean over dialects."""
    return table_GE.max(dim=1).values.mean()


def test_renormalised_top_1_gives_the_router_rounding_noise_and_no_lesson(arms):
    for run in arms["sick"]:
        assert max(run.router_gradient) < 1e-6
        assert run.router_moved < 1e-4
        assert torch.equal(run.table_after_GE, run.table_before_GE)


def test_switch_teaches_the_router_to_sort_the_dialects(arms):
    for run in arms["cured"]:
        assert min(run.router_gradient[:100]) > 1e-3
        assert run.router_moved > 1
        assert sorted_out(run.table_before_GE) < 0.85
        assert sorted_out(run.table_after_GE) > sorted_out(run.table_before_GE) + 0.05


def test_a_router_that_learns_pays_in_task_loss(arms):
    """Twenty seeds gave 0.25 to 0.51 without a lesson and 0.04 to 0.23 with one."""
    sick, cured = ([run.final_loss for run in arms[name]] for name in ("sick", "cured"))
    assert all(b < 0.8 * a for a, b in zip(sick, cured, strict=True))
    assert sum(cured) < 0.6 * sum(sick)


def test_an_exactly_constant_weight_gives_a_gradient_of_exactly_zero():
    def constant(logits_TE):
        idx_T = logits_TE.argmax(dim=-1)
        return torch.softmax(logits_TE.gather(1, idx_T[:, None]), dim=-1)[:, 0], idx_T

    run = tiny.train(constant, 0, SHORT)
    assert set(run.router_gradient) == {0.0}
    assert run.router_moved == 0


def test_a_frozen_router_stays():
    run = tiny.train(switch_gate, 0, SHORT, frozen_router=True)
    assert set(run.router_gradient) == {0.0}
    assert run.router_moved == 0


def test_a_seed_repeats_a_run():
    assert tiny.train(switch_gate, 3, SHORT).loss == tiny.train(switch_gate, 3, SHORT).loss
    assert tiny.train(switch_gate, 3, SHORT).loss != tiny.train(switch_gate, 4, SHORT).loss


def test_arms_of_one_seed_share_data_and_start():
    sick, cured = (tiny.train(gate, 5, SHORT) for gate in (tiny.renormalised_top1, switch_gate))
    assert torch.equal(sick.table_before_GE, cured.table_before_GE)
    assert torch.equal(sick.load[0], cured.load[0])


def test_the_stream_is_a_phrase_book():
    config = tiny.TinyConfig(num_dialects=3, num_words=5, words_per_line=4, num_lines=60)
    stream = tiny.make_stream(0, config)
    assert stream.tokens_BS.shape == (60, 1 + 2 * 4)
    assert torch.equal(stream.tokens_BS[:, 0], 5 + stream.labels_B)
    assert torch.bincount(stream.labels_B).tolist() == [20, 20, 20]
    dictionaries = [{} for _ in range(3)]
    for line, dialect in zip(stream.tokens_BS.tolist(), stream.labels_B.tolist(), strict=True):
        for word, translation in zip(line[1::2], line[2::2], strict=True):
            assert dictionaries[dialect].setdefault(word, translation) == translation
    assert all(sorted(words.values()) == list(range(5)) for words in dictionaries)
    assert dictionaries[0] != dictionaries[1]


def test_the_model_is_causal():
    config = tiny.TinyConfig()
    model = tiny.TinyMoE(config, switch_gate, moe_loop, torch.Generator().manual_seed(0))
    tokens_BS = tiny.make_stream(0, config).tokens_BS[:32]
    changed_BS = tokens_BS.clone()
    changed_BS[:, 4:] = (changed_BS[:, 4:] + 1) % config.num_words
    before, after = model(tokens_BS)[0], model(changed_BS)[0]
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_loads_and_tables_are_shares():
    run = tiny.train(switch_gate, 0, SHORT)
    assert len(run.loss) == len(run.router_gradient) == len(run.router_movement) == len(run.load) == 5
    torch.testing.assert_close(run.table_after_GE.sum(dim=1), torch.ones(8))
    for load_E in (*run.load, run.load_E):
        torch.testing.assert_close(load_E.sum(), torch.tensor(1.0))


def test_a_gate_may_choose_several_experts():
    run = tiny.train(lambda logits_TE: top_k_gate(logits_TE.softmax(dim=-1), 2), 0, SHORT)
    assert run.load_E.max() <= 0.5  # no expert can be both choices of a word
    assert min(run.router_gradient) > 1e-3


def test_the_learners_own_loop_does_the_work():
    calls = []

    def mine(*args):
        calls.append(args[1].shape)
        return moe_loop(*args)

    ours, theirs = (tiny.train(switch_gate, 0, SHORT, moe=moe) for moe in (mine, None))
    assert len(calls) > SHORT.steps
    assert ours.loss == theirs.loss


class BiasedGate:
    """Notebook 04's gate: a balancing bias that moves at 0.01."""

    def __init__(self, k, renormalize):
        self.k, self.renormalize, self.bias_E = k, renormalize, torch.zeros(4)

    def __call__(self, logits_TE):
        probs_TE = logits_TE.softmax(dim=-1)
        weights_TK, idx_TK = biased_top_k(probs_TE, self.bias_E, self.k)
        return (weights_TK if self.renormalize else probs_TE.gather(1, idx_TK)), idx_TK

    def after_step(self, idx_TK):
        self.bias_E = update_bias(self.bias_E, expert_counts(idx_TK, 4), 0.01)


def with_bias(k, seed, renormalize):
    gate = BiasedGate(k, renormalize)
    return tiny.train(gate, seed, after_step=gate.after_step)


@pytest.mark.slow
def test_a_balancing_loss_evens_the_load_on_eight_seeds_and_helps_the_task_on_seven(arms):
    def even(logits_TE, idx_TK):
        return 0.1 * load_balancing_loss(logits_TE.softmax(dim=-1), idx_TK)

    alone = [*arms["cured"], *(tiny.train(switch_gate, seed) for seed in range(len(SEEDS), 8))]
    helped = [tiny.train(switch_gate, seed, extra_loss=even) for seed in range(8)]
    assert all(max_violation(b.load_E) < max_violation(a.load_E) for a, b in zip(alone, helped, strict=True))
    assert sum(b.final_loss < a.final_loss for a, b in zip(alone, helped, strict=True)) == 7
    assert min(run.load_E.min() for run in helped) > 0.1


@pytest.mark.slow
def test_a_bias_that_overrules_the_weight_leaves_words_without_one():
    """Seeds 0 and 2 are disasters, 3 is not; with two experts and weights that sum to 1 no word is lost."""
    for seed, disaster in ((0, True), (2, True), (3, False)):
        run, control = with_bias(1, seed, renormalize=False), with_bias(2, seed, renormalize=True)
        weak = run.word_weight < 0.2
        assert (run.word_loss[weak].sum() > 0.5 * run.word_loss.sum()) == disaster
        assert weak.float().mean() < 0.25
        assert run.word_loss.mean() == pytest.approx(run.final_loss, rel=1e-5)
        torch.testing.assert_close(control.word_weight, torch.ones_like(control.word_weight))
        assert control.final_loss < 0.1


@pytest.mark.slow
def test_a_second_expert_does_most_of_it_and_on_seed_2_not_all():
    first = with_bias(2, 0, renormalize=False)
    assert first.final_loss < 0.25 * with_bias(1, 0, renormalize=False).final_loss
    run = with_bias(2, 2, renormalize=False)
    weak = run.word_weight < 0.2
    words, loss = float(weak.float().mean()), float(run.word_loss[weak].sum() / run.word_loss.sum())
    assert 0 < words < 0.05
    assert loss > 5 * words  # how much larger hangs on rounding: 20 times and more were seen


def test_after_step_sees_the_experts_of_the_words():
    seen = []
    run = tiny.train(switch_gate, 0, SHORT, after_step=seen.append)
    assert [tuple(idx_TK.shape) for idx_TK in seen] == [(32, 3)] * SHORT.steps
    for idx_TK, load_E in zip(seen, run.load, strict=True):
        torch.testing.assert_close(torch.bincount(idx_TK.flatten(), minlength=4) / 96, load_E)


def test_a_gate_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"tokens.*\(3, 1\)"):
        tiny.train(lambda logits_TE: (logits_TE[:3, 0], logits_TE[:3].argmax(dim=-1)), 0, SHORT)


@pytest.mark.parametrize("field", ["steps", "num_experts", "learning_rate"])
def test_sizes_must_be_positive(field):
    with pytest.raises(ValueError, match=f"{field} must be positive, got 0"):
        tiny.TinyConfig(**{field: 0})
