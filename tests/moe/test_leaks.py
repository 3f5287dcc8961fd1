"""The leaks that a capacity opens, found by the library's probes, and the ones that it does not open."""

import pytest
import torch

from moe_course.moe.capacity import (
    batch_priority_positions,
    expert_capacity,
    fill_buffers,
    positions_in_expert,
    read_buffers,
    token_major_positions,
)
from moe_course.moe.leaks import depends_on_batch, depends_on_future
from moe_course.moe.router import top_k_gate

D, E = 6, 4
FILLS = {
    "choice": lambda idx_TK, weights_TK: positions_in_expert(idx_TK, E),
    "token": lambda idx_TK, weights_TK: token_major_positions(idx_TK, E),
    "priority": lambda idx_TK, weights_TK: batch_priority_positions(idx_TK, weights_TK, E),
}


def moe_layer(fill, k, factor=0.5):
    """An MoE layer with a capacity; each expert scales its tokens. factor None: room for everybody."""
    rng = torch.Generator().manual_seed(3)
    router_DE, scale_E = torch.randn(D, E, generator=rng), torch.arange(1.0, E + 1)

    def layer(x_BSD):
        x_TD = x_BSD.flatten(0, 1)
        weights_TK, idx_TK = top_k_gate((x_TD @ router_DE).softmax(-1), k, renormalize=False)
        room = len(x_TD) if factor is None else expert_capacity(len(x_TD), E, k, factor)
        pos_TK = FILLS[fill](idx_TK, weights_TK)
        buf_ECD = fill_buffers(x_TD, idx_TK, pos_TK, E, room) * scale_E[:, None, None]
        return read_buffers(buf_ECD, idx_TK, pos_TK, weights_TK).view_as(x_BSD)

    return layer


def batch(rows, length=12):
    return torch.randn(rows, length, D, generator=torch.Generator().manual_seed(4))


def expert_choice(x_BSD):
    """Every expert takes its top-C tokens."""
    router_DE = torch.randn(D, E, generator=torch.Generator().manual_seed(3))
    x_TD = x_BSD.flatten(0, 1)
    weights_CE, idx_CE = (x_TD @ router_DE).softmax(-1).topk(len(x_TD) // E, dim=0)
    y_TD = torch.zeros_like(x_TD)
    for e in range(E):
        y_TD = y_TD.index_add(0, idx_CE[:, e], (e + 1) * weights_CE[:, e, None] * x_TD[idx_CE[:, e]])
    return y_TD.view_as(x_BSD)


@pytest.mark.parametrize(
    ("fill", "k", "leaks"),
    [
        ("token", 1, False),
        ("token", 2, False),
        ("token", 3, False),
        ("choice", 1, False),
        ("choice", 2, True),
        ("choice", 3, True),
        ("priority", 1, True),
        ("priority", 2, True),
    ],
)
def test_which_fills_see_the_future_of_one_sequence(fill, k, leaks):
    x_BSD = batch(rows=1)
    found = [depends_on_future(moe_layer(fill, k), x_BSD, position) for position in range(11)]
    assert any(found) == leaks


def test_expert_choice_sees_the_future():
    assert any(depends_on_future(expert_choice, batch(rows=1), position) for position in range(11))


@pytest.mark.parametrize("fill", FILLS)
def test_every_fill_couples_the_sequences_of_a_batch(fill):
    x_BSD = batch(rows=3)
    assert any(depends_on_batch(moe_layer(fill, 2), x_BSD, row) for row in range(3))


@pytest.mark.parametrize("fill", FILLS)
def test_without_drops_nothing_leaks(fill):
    layer, x_BSD = moe_layer(fill, 2, factor=None), batch(rows=3)
    assert not any(depends_on_future(layer, x_BSD, position) for position in (0, 5, 10))
    assert not any(depends_on_batch(layer, x_BSD, row) for row in range(3))


def test_expert_choice_couples_the_sequences():
    assert any(depends_on_batch(expert_choice, batch(rows=3), row) for row in range(3))


def test_the_last_position_and_a_batch_of_one_have_nothing_to_depend_on():
    def mixes_everything(x_BSD):
        return x_BSD + x_BSD.sum()

    x_BSD = batch(rows=1)
    assert not depends_on_future(mixes_everything, x_BSD, 11)
    assert not depends_on_batch(mixes_everything, x_BSD, 0)
    assert depends_on_future(mixes_everything, x_BSD, 10)


def test_rounding_is_no_leak():
    def noisy(x_BSD):
        shift = 1000 * torch.cos(x_BSD.sum())
        return (1000 * x_BSD + shift) - shift

    x_BSD = batch(rows=2)
    assert not depends_on_future(noisy, x_BSD, 5)
    assert not depends_on_batch(noisy, x_BSD, 1)


def test_the_same_answer_every_time_and_no_random_number_taken():
    state = torch.get_rng_state()
    layer, x_BSD = moe_layer("choice", 2), batch(rows=1)
    answers = [[depends_on_future(layer, x_BSD, position) for position in range(12)] for _ in range(2)]
    assert answers[0] == answers[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("place", [-1, 3])
def test_places_outside(place):
    x_BSD = torch.zeros(3, 3, 2)
    with pytest.raises(ValueError, match=str(place)):
        depends_on_future(lambda x: x, x_BSD, place)
    with pytest.raises(ValueError, match=str(place)):
        depends_on_batch(lambda x: x, x_BSD, place)
