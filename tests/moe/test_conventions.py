"""docs/conventions.md: what it says about our library, and values that the tests of other code bases assert.

A class for each section of the page. Values from elsewhere are named by the test that asserts them: V-MoE's
vmoe/moe_test.py (0ee62f9) and vmoe/nn/routing_test.py (0b17946), flaxformer's routing_test.py (5400cce).
"""

import math
import re
import warnings
from pathlib import Path

import pytest
import torch

from moe_course.moe import (
    MoEConfig,
    MoELayer,
    batch_priority_positions,
    biased_top_k,
    cv_squared,
    expert_capacity,
    expert_choice,
    fill_buffers,
    group_limited_top_k,
    load_balancing_loss,
    noisy_logits,
    positions_in_expert,
    read_buffers,
    router_logits,
    router_z_loss,
    token_major_positions,
    top_k_gate,
    update_bias,
)
from moe_course.moe.layer import queue_positions

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "conventions.md").read_text(encoding="utf-8")
SECTIONS = [title for title in re.findall(r"^## (.+)$", PAGE, re.MULTILINE) if title != "What was read"]

GATES_TE = torch.tensor([[0.4, 0.0, 0.2], [0.5, 0.1, 0.4], [0.3, 0.2, 0.6]])
"""Three items and three experts of V-MoE's GetTopExpertsPerItemDispatcherTest, each with a capacity of 2."""

LOSS_GATES_TE = torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.8, 0.2, 0.0]])
"""Of V-MoE's test_gshard_auxiliary_loss and test_importance_auxiliary_loss."""


def layer_of(**fields):
    sizes = dict(d_model=8, d_ff=12, num_experts=4, top_k=2)
    return MoELayer(MoEConfig(**{**sizes, **fields}), torch.Generator().manual_seed(0))


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_the_page_has_tests_of_its_name(section):
    words = re.findall(r"\w+", section)
    assert "Test" + "".join(word[0].upper() + word[1:] for word in words) in globals()


def test_every_code_base_that_is_named_was_read():
    read = PAGE.partition("## What was read")[2]
    names = [row.split("|")[1].split(",")[0].strip() for row in read.splitlines() if row.startswith("| ")][1:]
    assert len(names) == 13
    for name in names:
        assert PAGE.count(name) > 1, f"{name} is read, and never mentioned"


CAPACITIES = {
    "ours": lambda T, E, K, f: expert_capacity(T, E, K, f),
    "Megatron-LM": lambda T, E, K, f: math.ceil(T * K / E * f),
    "V-MoE": lambda T, E, K, f: -(-math.ceil(T * K * f / E) // 4) * 4,
    "DeepSpeed": lambda T, E, K, f: max(8, math.ceil(T / E * f * K)),
    "flaxformer": lambda T, E, K, f: max(4, round(f * T / E)),
    "st-moe-pytorch": lambda T, E, K, f: max(4, min(T, int(T * f / E))),
    "MegaBlocks": lambda T, E, K, f: int(f * K * T / E),
    "Tutel": lambda T, E, K, f: K * int(f * math.ceil(T / E)),
    "MaxText": lambda T, E, K, f: int(max(math.ceil(T * K / E) * f, f)),
    "fairseq": lambda T, E, K, f: 2 * math.ceil(T / E),
}
"""The formulas of the page's table of capacities."""


class TestCapacity:
    @pytest.mark.parametrize("name", CAPACITIES)
    def test_the_examples_of_the_table_follow_from_its_formulas(self, name):
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} | ")][:1]
        assert int(row.split("|")[3]) == CAPACITIES[name](10, 4, 2, 1.25)

    def test_it_rounds_up_and_means_the_decimal_number(self):
        assert expert_capacity(10, 4, 2, 1.25) == 7
        assert expert_capacity(100, 1, 1, 1.1) == 110 < math.ceil(100 * 1.1)

    def test_v_moe_before_it_rounds_to_a_multiple(self):
        """test_get_top_experts_per_item_dispatcher_capacity_factor and test_top_items_per_expert_capacity_factor."""
        assert expert_capacity(32, 32, 2, 1.0) == 2  # V-MoE then takes 4
        assert expert_capacity(128, 32, 1, 2.0) == 8

    def test_there_is_no_minimum_and_the_layer_cuts_it_at_the_number_of_tokens(self):
        assert expert_capacity(4, 8, 1, 1.0) == 1
        whole, cut = layer_of(capacity_factor=100.0), layer_of()
        x_BSD = tokens(1, 5, 8)
        torch.testing.assert_close(whole(x_BSD)[0], cut(x_BSD)[0])


class TestOrderOfTheQueue:
    IDX_TK = torch.tensor([[0, 2], [0, 2], [2, 0]])

    def test_choice_is_v_moes_vanilla(self):
        """test_top_experts_per_item_expert_indices, vanilla."""
        weights_TK, idx_TK = top_k_gate(GATES_TE, 2, renormalize=False)
        assert idx_TK.tolist() == self.IDX_TK.tolist()
        torch.testing.assert_close(weights_TK, torch.tensor([[0.4, 0.2], [0.5, 0.4], [0.6, 0.3]]))
        assert positions_in_expert(idx_TK, 3).tolist() == [[0, 1], [1, 2], [0, 2]]

    def test_choice_is_flaxformers_without_batch_priority(self):
        """test_tokens_choose_one_expert_scatter_router_no_bpr."""
        for chosen, wanted in (([2, 3, 2, 2], [0, 0, 1, 2]), ([3, 2, 3, 2], [0, 0, 1, 1])):
            assert positions_in_expert(torch.tensor(chosen)[:, None], 4).flatten().tolist() == wanted

    def test_the_three_orders_drop_different_assignments(self):
        scores_TK = torch.tensor([[0.4, 0.2], [0.5, 0.4], [0.6, 0.3]])
        places = {
            fill: queue_positions(self.IDX_TK, scores_TK, 3, fill) for fill in ("choice", "token", "priority")
        }
        assert places["choice"].tolist() == [[0, 1], [1, 2], [0, 2]]
        assert places["token"].tolist() == [[0, 0], [1, 1], [2, 2]]
        assert places["priority"].tolist() == [[1, 2], [0, 1], [0, 2]]
        assert torch.equal(places["token"], token_major_positions(self.IDX_TK, 3))

    def test_choice_is_the_default(self):
        assert layer_of().config.fill == "choice"


class TestPriority:
    def test_v_moes_batch_priority(self):
        """test_top_experts_per_item_expert_indices, bpr."""
        weights_TK, idx_TK = top_k_gate(GATES_TE, 2, renormalize=False)
        assert batch_priority_positions(idx_TK, weights_TK, 3).tolist() == [[1, 2], [0, 1], [0, 2]]

    def test_flaxformers_batch_priority_with_one_expert(self):
        """test_tokens_choose_one_expert_scatter_router; the weight of the dropped token is not asserted there."""
        scores = torch.tensor([0.25390625, 0.2578125, 0.25585938, 0.25])
        found = batch_priority_positions(torch.tensor([[2], [3], [2], [2]]), scores[:, None], 4)
        assert found.flatten().tolist() == [1, 0, 0, 2]
        scores = torch.tensor([0.2578125, 0.25390625, 0.25585938, 0.25585938])
        found = batch_priority_positions(torch.tensor([[3], [2], [3], [2]]), scores[:, None], 4)
        assert found.flatten().tolist() == [0, 1, 1, 0]

    def test_flaxformers_batch_priority_with_two_experts(self):
        """test_tokens_choose_multiple_experts_scatter_router, its second group."""
        idx_TK = torch.tensor([[3, 2], [2, 3], [3, 2], [2, 3]])
        first_T = torch.tensor([0.2578125, 0.25390625, 0.25585938, 0.25585938])
        found = batch_priority_positions(idx_TK, first_T[:, None].expand(4, 2), 4)
        assert found.tolist() == [[0, 2], [1, 3], [1, 3], [0, 2]]

    @pytest.mark.parametrize("top_k", [1, 2])
    def test_the_layer_compares_scores_and_not_renormalised_weights(self, top_k):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, plain = (
                layer_of(fill="priority", capacity_factor=0.5, renormalize=renormalize, top_k=top_k)
                for renormalize in (True, False)
            )
        with torch.no_grad():
            for layer in (found, plain):
                layer.router.mul_(30)
        x_BSD = tokens(1, 16, 8)
        (y_BSD, stats), (unscaled_BSD, _) = found(x_BSD), plain(x_BSD)
        dropped, also_dropped = (y.abs().sum(dim=-1) == 0 for y in (y_BSD, unscaled_BSD))
        assert stats.drop_rate > 0.2
        assert torch.equal(dropped, also_dropped)


class TestNormaliseBeforeOrAfterTheDrop:
    def test_v_moes_dispatch_and_combine(self):
        """DispatcherTest.test_indices: what has no place there (9, 9) has one beyond the capacity here."""
        none = [0, 9]
        places = torch.tensor(
            [
                [[[1, 0], none], [[0, 0], none], [[1, 1], [0, 1]]],
                [[[0, 0], [1, 1]], [[0, 1], none], [none, [1, 0]]],
            ]
        )
        wanted_buf = [[[[2], [3]], [[1], [3]]], [[[4], [5]], [[6], [4]]]]
        wanted_y = [[0.7, 1.4, 3.0], [4.0, 3.5, 1.8]]
        weights_TK = torch.tensor([[0.7, 0.3]]).expand(3, 2)
        for group in range(2):
            idx_TK, pos_TK = places[group].unbind(-1)
            x_TD = torch.arange(1.0, 4.0)[:, None] + 3 * group
            buf_ECD = fill_buffers(x_TD, idx_TK, pos_TK, 2, 2)
            assert buf_ECD.tolist() == wanted_buf[group]
            y_TD = read_buffers(buf_ECD, idx_TK, pos_TK, weights_TK)
            torch.testing.assert_close(y_TD.flatten(), torch.tensor(wanted_y[group]))

    @pytest.mark.parametrize(
        ("places", "wanted"),
        [
            (lambda idx, weights: positions_in_expert(idx, 3), [0.4 + 0.2, 0.5, 0.6]),
            (lambda idx, weights: batch_priority_positions(idx, weights, 3), [0.4, 0.5 + 0.4, 0.6]),
        ],
        ids=["vanilla", "batch priority"],
    )
    def test_v_moes_combine_weights(self, places, wanted):
        """test_top_experts_per_item_einsum, the weights summed over experts and slots."""
        weights_TK, idx_TK = top_k_gate(GATES_TE, 2, renormalize=False)
        y_TD = read_buffers(torch.ones(3, 2, 1), idx_TK, places(idx_TK, weights_TK), weights_TK)
        torch.testing.assert_close(y_TD.flatten(), torch.tensor(wanted))

    def test_weights_that_are_left_stay_as_they_are(self):
        weights_TK, idx_TK = top_k_gate(GATES_TE, 2)
        torch.testing.assert_close(weights_TK.sum(dim=1), torch.ones(3))
        pos_TK = positions_in_expert(idx_TK, 3)
        y_TD = read_buffers(torch.ones(3, 2, 1), idx_TK, pos_TK, weights_TK)
        # the second item loses its second choice, the third as well
        torch.testing.assert_close(y_TD.flatten(), torch.tensor([1.0, 0.5 / 0.9, 0.6 / 0.9]))


class TestTop1AndRenormalisation:
    def test_the_default_renormalises_for_more_than_one_expert_only(self):
        x_BSD = tokens(1, 6, 8)
        torch.testing.assert_close(layer_of()(x_BSD)[1].weights_TK.sum(dim=1), torch.ones(6))
        stats = layer_of(top_k=1)(x_BSD)[1]
        torch.testing.assert_close(stats.weights_TK[:, 0], stats.probs_TE.max(dim=1).values)

    def test_a_renormalised_top_1_warns_and_gives_the_router_no_gradient(self):
        with pytest.warns(UserWarning, match="no gradient"):
            layers = layer_of(top_k=1, renormalize=True), layer_of(top_k=1)
        for layer in layers:
            y_BSD, _ = layer(tokens(1, 6, 8))
            y_BSD.square().sum().backward()
        constant, trained = (layer.router.grad.abs().max() for layer in layers)
        assert constant < 1e-4 * trained  # what is left is rounding

    def test_renormalising_is_a_softmax_over_the_chosen_logits(self):
        """mistral-inference's way."""
        logits_TE = tokens(5, 4)
        weights_TK, idx_TK = top_k_gate(logits_TE.softmax(dim=-1), 2)
        torch.testing.assert_close(weights_TK, logits_TE.gather(1, idx_TK).softmax(dim=-1))

    def test_sigmoid_scores_are_divided_by_their_sum_and_scaled(self):
        """DeepSeek-V3's way."""
        scores_TE = tokens(5, 4).sigmoid()
        weights_TK, _ = biased_top_k(scores_TE, torch.zeros(4), 2, scale=2.5)
        torch.testing.assert_close(weights_TK.sum(dim=1), torch.full((5,), 2.5))


class TestBalancingLoss:
    def test_v_moes_gshard_loss(self):
        """test_gshard_auxiliary_loss: with one choice a token."""
        loss = load_balancing_loss(LOSS_GATES_TE, LOSS_GATES_TE.argmax(dim=1)[:, None])
        assert loss.item() == pytest.approx(1.0875, abs=1e-6)

    def test_flaxformers_loss(self):
        """test_load_balancing_loss, with the numbers that jax draws there."""
        probs_TE = torch.tensor(
            [
                [0.35490513, 0.60419905],
                [0.42758429, 0.23061597],
                [0.32985854, 0.43953657],
                [0.25099766, 0.27730572],
                [0.76782072, 0.71474564],
            ]
        )
        loss = load_balancing_loss(probs_TE, torch.tensor([[0], [1], [1], [0], [0]]))
        assert loss.item() == pytest.approx(0.8741045, abs=1e-6)

    @pytest.mark.parametrize("top_k", [1, 2, 3])
    def test_uniform_routing_gives_1_and_flaxformers_scale_is_k_times_ours(self, top_k):
        probs_TE = torch.full((12, 4), 0.25)
        idx_TK = (torch.arange(12)[:, None] + torch.arange(top_k)) % 4
        assert load_balancing_loss(probs_TE, idx_TK).item() == pytest.approx(1)
        chosen_TE = torch.zeros(12, 4).scatter(1, idx_TK, 1.0)
        theirs = (chosen_TE.mean(dim=0) * probs_TE.mean(dim=0)).mean() * 4**2
        assert theirs.item() == pytest.approx(top_k)

    def test_all_choices_count_and_not_the_first_alone(self):
        probs_TE = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]])
        _, idx_TK = top_k_gate(probs_TE, 2)
        assert load_balancing_loss(probs_TE, idx_TK).item() == pytest.approx(3 * (0.5 * 0.6 + 2 * 0.25 * 0.2))
        assert load_balancing_loss(probs_TE, idx_TK[:, :1]).item() == pytest.approx(3 * 0.6)

    def test_it_counts_before_the_drop(self):
        x_BSD = tokens(1, 12, 8)
        dropping, whole = layer_of(capacity_factor=0.25)(x_BSD)[1], layer_of()(x_BSD)[1]
        assert dropping.drop_rate > 0
        assert torch.equal(dropping.lb_loss, whole.lb_loss)


class TestPadding:
    MASK_BS = torch.tensor([[True] * 6 + [False] * 6])

    def test_it_counts_neither_in_losses_nor_in_the_load(self):
        x_BSD = tokens(1, 12, 8)
        layer = layer_of()
        _, masked = layer(x_BSD, self.MASK_BS)
        _, alone = layer(x_BSD[:, :6])
        for name in ("lb_loss", "z_loss", "counts_E"):
            torch.testing.assert_close(getattr(masked, name), getattr(alone, name))

    def test_it_is_routed_and_takes_a_place(self):
        x_BSD = tokens(1, 12, 8)
        layer = layer_of(capacity_factor=0.25)
        first = self.MASK_BS.flip(1)  # padding on the left is first in the queue
        y_BSD, stats = layer(x_BSD, first)
        torch.testing.assert_close(y_BSD, layer(x_BSD)[0])
        assert stats.drop_rate == layer(x_BSD)[1].drop_rate


class TestSquaredCoefficientOfVariation:
    def test_v_moes_importance_loss(self):
        """test_importance_auxiliary_loss."""
        assert cv_squared(LOSS_GATES_TE.sum(dim=0)).item() == pytest.approx(0.03874999, abs=1e-7)

    def test_v_moes_load_loss(self):
        """test_load_auxiliary_loss: the probability to be chosen if the noise were drawn again."""
        logits_TE = torch.tensor([[0.9, 0.06, 0.04], [0.7, 0.18, 0.12], [0.85, 0.05, 0.1]])
        noise_TE = torch.tensor([[-0.037, 0.026, -0.018], [-0.074, 0.045, -0.015], [-0.067, -0.059, 0.073]])
        least_T1 = (logits_TE + noise_TE).topk(2, dim=1).values[:, 1:]
        chosen_TE = 1 - torch.special.ndtr((least_T1 - logits_TE) / 0.1)
        assert cv_squared(chosen_TE.mean(dim=0)).item() == pytest.approx(0.48573864536489236, abs=1e-6)

    def test_the_sample_variance_of_tutel_gives_more(self):
        values_E = torch.tensor([1.0, 2.0, 3.0, 6.0])
        theirs = values_E.var() / values_E.mean() ** 2
        assert theirs.item() == pytest.approx(4 / 3 * cv_squared(values_E).item())


class TestZLoss:
    def test_flaxformers_value(self):
        """test_router_z_loss, with the numbers that jax draws there: two groups of six tokens, four experts."""
        logits_TE = torch.tensor(
            [
                [-4.2124424, 3.8919392, -3.6481273, 1.8849983],
                [0.3262544, 2.9186511, 0.8475900, -4.5568413],
                [-3.3206201, 4.6977119, -0.1543999, 0.4408636],
                [3.4467144, 4.3436565, -4.7224274, -4.2646370],
                [-2.2244060, -2.5318158, -1.3832569, 1.1891165],
                [-2.3200619, -0.4470596, 4.2898188, -0.0066271],
                [0.9947085, -0.6992364, 0.2550402, 4.2952080],
                [3.5937328, -3.2408535, -4.2982779, 4.4266014],
                [0.7669010, 2.6588764, 2.4505415, 4.6051874],
                [0.2333031, -3.0845237, 0.6262374, -2.9865491],
                [0.7595148, -2.1099675, -4.1553459, -2.8326452],
                [2.3771453, 1.0041380, -3.1781673, 0.7581558],
            ]
        )
        assert router_z_loss(logits_TE).item() == pytest.approx(13.786719, abs=1e-5)


class TestNoiseAndJitter:
    def test_the_noise_is_learned_added_to_the_logits_and_gone_at_evaluation(self):
        x_TD, w_gate_DE, w_noise_DE, noise_TE = (
            tokens(5, 8),
            tokens(8, 4, seed=1),
            tokens(8, 4, seed=2),
            tokens(5, 4),
        )
        plain_TE = noisy_logits(x_TD, w_gate_DE, w_noise_DE, noise_TE, training=False)
        torch.testing.assert_close(plain_TE, x_TD @ w_gate_DE)
        noisy_TE = noisy_logits(x_TD, w_gate_DE, w_noise_DE, noise_TE, training=True)
        std_TE = torch.nn.functional.softplus(x_TD @ w_noise_DE)
        torch.testing.assert_close(noisy_TE - plain_TE, noise_TE * std_TE)

    def test_a_layer_without_noise_is_the_same_in_training(self):
        layer, x_BSD = layer_of(), tokens(1, 5, 8)
        assert torch.equal(layer.train()(x_BSD)[0], layer.eval()(x_BSD)[0])


class TestPrecisionOfTheRouter:
    def test_logits_and_losses_are_in_float32_also_under_autocast(self):
        layer = layer_of().bfloat16()
        assert router_logits(tokens(5, 8).bfloat16(), layer.router).dtype == torch.float32
        _, stats = layer(tokens(1, 5, 8).bfloat16())
        assert {stats.probs_TE.dtype, stats.lb_loss.dtype, stats.z_loss.dtype} == {torch.float32}
        x_TD, w_DE = tokens(5, 8), tokens(8, 4, seed=1)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(
                router_logits(x_TD, w_DE), x_TD @ w_DE.float(), check_dtype=False, atol=0.1, rtol=0.1
            )
            assert router_logits(x_TD, w_DE).dtype == torch.float32
        torch.testing.assert_close(router_logits(x_TD, w_DE), x_TD @ w_DE)


class TestGroupsOfExperts:
    SCORES_TE = torch.tensor([[0.5, 0.0, 0.3, 0.25, 0.2, 0.2]])  # three groups of two

    @pytest.mark.parametrize(("group_sum", "group"), [(1, {0, 1}), (2, {2, 3})])
    def test_the_highest_or_the_sum_of_two(self, group_sum, group):
        idx_TK = group_limited_top_k(self.SCORES_TE, torch.zeros(6), 3, 1, 2, group_sum)
        assert {*idx_TK[0].tolist()} == group

    def test_two_is_the_default(self):
        assert layer_of().config.group_sum == 2
        idx_TK = group_limited_top_k(self.SCORES_TE, torch.zeros(6), 3, 1, 2)
        assert {*idx_TK[0].tolist()} == {2, 3}

    def test_a_closed_group_stays_closed_where_biased_scores_are_negative(self):
        idx_TK = group_limited_top_k(self.SCORES_TE, torch.full((6,), -1.0), 3, 1, 2)
        assert {*idx_TK[0].tolist()} == {2, 3}


class TestBiasWithoutALoss:
    def test_it_rises_below_the_mean_load_and_falls_above_it(self):
        found = update_bias(torch.zeros(4), torch.tensor([2, 4, 4, 6]), 0.001)
        torch.testing.assert_close(found, torch.tensor([0.001, 0.0, 0.0, -0.001]))

    def test_it_is_not_centred(self):
        """torchtitan subtracts the mean of the step."""
        found = update_bias(torch.zeros(4), torch.tensor([1, 1, 1, 9]), 0.001)
        torch.testing.assert_close(found, torch.tensor([0.001, 0.001, 0.001, -0.001]))

    def test_it_chooses_and_enters_no_weight(self):
        scores_TE = torch.tensor([[0.5, 0.3, 0.2]])
        weights_TK, idx_TK = biased_top_k(scores_TE, torch.tensor([0.0, 0.0, 1.0]), 2)
        assert idx_TK.tolist() == [[2, 0]]
        torch.testing.assert_close(weights_TK, torch.tensor([[0.2, 0.5]]) / 0.7)

    def test_it_is_off_by_default_and_stays_in_float32(self):
        assert layer_of().config.bias_rate == 0
        assert layer_of(bias_rate=0.001).bfloat16().balance_bias.dtype == torch.float32


class TestExpertChoice:
    def test_v_moes_top_items_per_expert(self):
        """test_top_items_per_expert_einsum."""
        weights_EC, idx_EC = expert_choice(GATES_TE, 2)
        assert idx_EC.tolist() == [[1, 0], [2, 1], [2, 1]]
        torch.testing.assert_close(weights_EC, torch.tensor([[0.5, 0.4], [0.2, 0.1], [0.6, 0.4]]))

    def test_flaxformers_experts_choose(self):
        """test_experts_choose_mask_router; of two probabilities that sum to 1 it asserts one, or none where tied."""
        low, high = 0.49609375, 0.50390625
        first = torch.tensor([[low, high], [low, high], [0.49804688, 0.50195312], [low, high]])
        weights_EC, idx_EC = expert_choice(first, 2)
        assert idx_EC.tolist() == [[2, 0], [0, 1]]
        torch.testing.assert_close(weights_EC, torch.tensor([[0.49804688, low], [high, high]]))
        second = torch.tensor(
            [[0.49804688, 0.50195312], [0.49414062, 0.50585938], *[[0.4921875, 0.5078125]] * 2]
        )
        weights_EC, idx_EC = expert_choice(second, 2)
        assert idx_EC.tolist() == [[0, 1], [2, 3]]
        torch.testing.assert_close(
            weights_EC, torch.tensor([[0.49804688, 0.49414062], [0.5078125, 0.5078125]])
        )
