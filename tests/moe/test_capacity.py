"""Capacity, queues and buffers against counting by hand."""

import itertools
import math
import random
from fractions import Fraction

import pytest
import torch

from moe_course.moe.capacity import (
    batch_priority_positions,
    drop_and_waste,
    expert_capacity,
    fill_buffers,
    positions_in_expert,
    read_buffers,
    token_major_positions,
    uniform_drop_rate,
)
from moe_course.moe.router import top_k_gate

T, D, E, K, C = 11, 3, 5, 2, 4
# The golden fixture of the course, with a tie in the fourth token's second choice and no token for expert 3.
Z = [[2, 1, 0, -1], [2, 0, 1, -1], [0, 2, 1, -1], [1, 2, -1, 0], [3, 1, 0, 0.5], [1.5, 1, 0, -2]]


def golden():
    weights_TK, idx_TK = top_k_gate(torch.tensor(Z, dtype=torch.float64).softmax(dim=-1), 2)
    return weights_TK, idx_TK, 4


def routing(seed=0, tokens=T):
    rng = torch.Generator().manual_seed(seed)
    popularity_E = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.2])
    idx_TK = torch.multinomial(popularity_E.expand(tokens, -1), K, generator=rng)
    weights_TK = torch.rand(tokens, K, generator=rng).sort(dim=1, descending=True).values
    return weights_TK, idx_TK


def queue(idx_TK, arrivals):
    """Places by counting: `arrivals` are the (token, slot) pairs in the order in which they queue."""
    waiting, pos_TK = [0] * E, torch.zeros_like(idx_TK)
    for t, slot in arrivals:
        expert = idx_TK[t, slot]
        pos_TK[t, slot] = waiting[expert]
        waiting[expert] += 1
    return pos_TK


class TestExpertCapacity:
    @pytest.mark.parametrize(
        ("sizes", "slots"),
        [
            ((12, 4, 1, 1.0), 3),
            ((12, 4, 2, 1.0), 6),
            ((10, 4, 1, 1.5), 4),
            ((512, 8, 2, 1.25), 160),
            ((1, 64, 1, 1.0), 1),
        ],
    )
    def test_by_hand(self, sizes, slots):
        assert expert_capacity(*sizes) == slots
        assert type(expert_capacity(*sizes)) is int

    def test_the_factor_means_what_is_written(self):
        assert math.ceil(100 * 1.1) == 111  # in floating point
        assert expert_capacity(100, 1, 1, 1.1) == 110

    def test_exact_for_many_sizes(self):
        rng = random.Random(0)
        for _ in range(500):
            tokens, experts, hundredths = rng.randint(1, 10**7), rng.randint(1, 300), rng.randint(1, 400)
            k = rng.randint(1, min(8, experts))
            exact = Fraction(tokens * k * hundredths, 100 * experts)
            assert expert_capacity(tokens, experts, k, hundredths / 100) == math.ceil(exact)

    @pytest.mark.parametrize(
        "bad",
        [(0, 4, 1, 1.0), (4, 0, 1, 1.0), (4, 4, 0, 1.0), (4, 4, 5, 1.0), (4, 4, 1, 0.0), (4, 4, 1, -1.0),
         (4, 4, 1, math.inf), (4, 4, 1, math.nan)],
    )  # fmt: skip
    def test_bad_arguments(self, bad):
        with pytest.raises(ValueError, match="positive"):
            expert_capacity(*bad)


class TestPositions:
    def test_the_golden_fixture(self):
        weights_TK, idx_TK, experts = golden()
        dropped = {
            name: {(t, k) for t, k in (pos_TK >= 3).nonzero().tolist()}
            for name, pos_TK in (
                ("choice", positions_in_expert(idx_TK, experts)),
                ("token", token_major_positions(idx_TK, experts)),
                ("priority", batch_priority_positions(idx_TK, weights_TK, experts)),
            )
        }
        assert dropped == {
            "choice": {(3, 1), (4, 1), (5, 0), (5, 1)},
            "token": {(4, 0), (4, 1), (5, 0), (5, 1)},
            "priority": {(0, 1), (3, 1), (5, 0), (5, 1)},
        }

    @pytest.mark.parametrize("seed", range(4))
    def test_against_counting(self, seed):
        weights_TK, idx_TK = routing(seed)
        by_weight = sorted(range(T), key=lambda t: -weights_TK[t, 0].item())
        orders = {
            "choice": [(t, k) for k in range(K) for t in range(T)],
            "token": [(t, k) for t in range(T) for k in range(K)],
            "priority": [(t, k) for k in range(K) for t in by_weight],
        }
        assert positions_in_expert(idx_TK, E).equal(queue(idx_TK, orders["choice"]))
        assert token_major_positions(idx_TK, E).equal(queue(idx_TK, orders["token"]))
        assert batch_priority_positions(idx_TK, weights_TK, E).equal(queue(idx_TK, orders["priority"]))

    def test_equal_weights_keep_the_order_of_the_tokens(self):
        _, idx_TK = routing(tokens=200)
        even_TK = torch.full(idx_TK.shape, 0.5)
        assert batch_priority_positions(idx_TK, even_TK, E).equal(positions_in_expert(idx_TK, E))

    def test_no_tokens(self):
        nobody_TK = torch.zeros(0, K, dtype=torch.long)
        assert positions_in_expert(nobody_TK, E).shape == (0, K)
        assert batch_priority_positions(nobody_TK, torch.zeros(0, K), E).shape == (0, K)

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match="idx_TK"):
            positions_in_expert(torch.zeros(3, dtype=torch.long), E)
        with pytest.raises(ValueError, match="weights_TK"):
            batch_priority_positions(torch.zeros(3, 2, dtype=torch.long), torch.zeros(2, 2), E)


class TestBuffers:
    def test_by_hand(self):
        x_TD = torch.tensor([[1.0], [2.0], [3.0]])
        idx_TK, pos_TK = torch.tensor([[1], [1], [0]]), torch.tensor([[0], [1], [0]])
        assert fill_buffers(x_TD, idx_TK, pos_TK, 2, 1).tolist() == [[[3.0]], [[1.0]]]
        buf_ECD, weights_TK = torch.tensor([[[30.0]], [[10.0]]]), torch.tensor([[0.5], [0.5], [0.5]])
        assert read_buffers(buf_ECD, idx_TK, pos_TK, weights_TK).tolist() == [[5.0], [0.0], [15.0]]

    @pytest.mark.parametrize("capacity", [1, C, 30])
    def test_there_and_back(self, capacity):
        """Through buffers and back, a token is multiplied by the weights of its choices that were kept."""
        weights_TK, idx_TK = routing()
        x_TD, pos_TK = torch.randn(T, D, dtype=torch.float64), positions_in_expert(idx_TK, E)
        buf_ECD = fill_buffers(x_TD, idx_TK, pos_TK, E, capacity)
        y_TD = read_buffers(buf_ECD, idx_TK, pos_TK, weights_TK.double())
        kept_T = (weights_TK.double() * (pos_TK < capacity)).sum(1)
        torch.testing.assert_close(y_TD, kept_T[:, None] * x_TD)

    def test_gradients(self):
        weights_TK, idx_TK = routing(1)
        pos_TK = token_major_positions(idx_TK, E)
        x_TD = torch.randn(T, D, dtype=torch.float64, requires_grad=True)
        weights_TK = weights_TK.double().requires_grad_()

        def there_and_back(x, w):
            return read_buffers(fill_buffers(x, idx_TK, pos_TK, E, C) ** 2, idx_TK, pos_TK, w)

        assert (pos_TK >= C).any()
        assert torch.autograd.gradcheck(there_and_back, (x_TD, weights_TK))

    def test_a_dropped_assignment_adds_0_even_beside_an_infinite_row(self):
        buf_ECD = torch.full((1, 1, 1), math.inf)
        weights_TK = torch.ones(1, 1, requires_grad=True)
        y_TD = read_buffers(buf_ECD, torch.tensor([[0]]), torch.tensor([[1]]), weights_TK)
        assert y_TD.tolist() == [[0.0]]
        y_TD.sum().backward()
        assert weights_TK.grad.tolist() == [[0.0]]

    def test_dtypes(self):
        weights_TK, idx_TK = routing()
        pos_TK = positions_in_expert(idx_TK, E)
        buf_ECD = fill_buffers(torch.randn(T, D).bfloat16(), idx_TK, pos_TK, E, C)
        assert buf_ECD.dtype == torch.bfloat16
        assert read_buffers(buf_ECD, idx_TK, pos_TK, weights_TK).dtype == torch.bfloat16

    def test_bad_arguments(self):
        weights_TK, idx_TK = routing()
        with pytest.raises(ValueError, match=r"capacity.*0"):
            fill_buffers(torch.zeros(T, D), idx_TK, idx_TK, E, 0)
        with pytest.raises(ValueError, match="weights_TK"):
            read_buffers(torch.zeros(E, C, D), idx_TK, idx_TK, weights_TK[:, :1])


def test_drop_and_waste():
    _, idx_TK, experts = golden()  # counts 5, 5, 2, 0
    assert drop_and_waste(idx_TK, experts, 3) == (4 / 12, 4 / 12)
    assert drop_and_waste(idx_TK, experts, 5) == (0.0, 8 / 20)
    with pytest.raises(ValueError, match="0"):
        drop_and_waste(idx_TK, experts, 0)
    with pytest.raises(ValueError, match="assignments"):
        drop_and_waste(idx_TK[:0], experts, 3)


class TestUniformDropRate:
    @pytest.mark.parametrize(("k", "law"), [(1, 0.0466), (2, 0.0305)])
    def test_the_law_of_even_routing(self, k, law):
        assert math.sqrt((8 - k) / (2 * math.pi * 512 * k)) == pytest.approx(law, abs=5e-5)
        assert uniform_drop_rate(512, 8, k, 512 * k // 8) == pytest.approx(law, rel=5e-3)

    def test_against_all_choices(self):
        """Four tokens, three experts, two slots: all 81 ways to choose."""
        choices = list(itertools.product(range(3), repeat=4))
        late = sum(max(0, choice.count(e) - 2) for choice in choices for e in range(3))
        assert uniform_drop_rate(4, 3, 1, 2) == pytest.approx(late / (4 * len(choices)))

    def test_everybody_chooses_everything(self):
        assert uniform_drop_rate(10, 3, 3, 8) == 0.2
        assert uniform_drop_rate(10, 3, 3, 12) == 0

    def test_room_for_all(self):
        assert uniform_drop_rate(10, 4, 2, 10) == 0


def test_the_hot_path_reads_no_value():
    """On the meta device there are shapes and no values: any transfer to the host raises."""
    with torch.device("meta"):
        x_TD, weights_TK = torch.zeros(T, D, requires_grad=True), torch.zeros(T, K)
        idx_TK = torch.zeros(T, K, dtype=torch.long)
        token_major_positions(idx_TK, E)
        positions_in_expert(idx_TK, E)
        pos_TK = batch_priority_positions(idx_TK, weights_TK, E)
        y_TD = read_buffers(fill_buffers(x_TD, idx_TK, pos_TK, E, C), idx_TK, pos_TK, weights_TK)
        y_TD.sum().backward()
    assert y_TD.shape == (T, D)
    assert y_TD.is_meta
