"""Gradients on several real processes: those of one process, and clipped as one process clips them."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from moe_course.grading.worker.ranks import on_ranks
from moe_course.moe import MoEConfig, MoELayer
from moe_course.systems.expert_parallel import ExpertParallelMoE, expert_parallel_forward, is_expert_weight
from moe_course.systems.parallel_gradients import clip_gradients, reduce_gradients

E, D, F, K, T = 6, 5, 7, 2, 4
MAX_NORM = 0.01


def whole_layer():
    torch.manual_seed(3)
    config = MoEConfig(d_model=D, d_ff=F, num_experts=E, top_k=K, num_shared=1, d_ff_shared=3)
    return MoELayer(config).double()


def tokens(rank):
    generator = torch.Generator().manual_seed(70 + rank)
    return torch.randn(1, T, D, generator=generator, dtype=torch.float64)


def gradients(layer, x):
    """Those of a mean over the tokens, by name: of what every rank has, and of the experts."""
    weight_D = torch.arange(1.0, D + 1, dtype=torch.float64)
    (layer(x)[0] * weight_D).sum(dim=-1).mean().backward()
    named = {name: p.grad for name, p in layer.named_parameters()}
    experts = {name: grad for name, grad in named.items() if is_expert_weight(name)}
    return {name: grad for name, grad in named.items() if name not in experts}, experts


def copied(shared, experts):
    return {name: grad.clone() for name, grad in (shared | experts).items()}


def idle_step(rank, size):
    """The gradients of a gain that every rank has, and of this rank's experts; all choices are experts of rank 0."""
    here = E // size
    idx_TK = torch.arange(K).expand(T, K)
    weights_TK = torch.full((T, K), 0.5, dtype=torch.float64)
    gain_D = torch.ones(D, dtype=torch.float64, requires_grad=True)
    whole = [getattr(whole_layer(), name).detach() for name in ("w_gate", "w_up", "w_down")]
    local = [w[rank * here : (rank + 1) * here].clone().requires_grad_() for w in whole]
    x_TD = tokens(rank)[0] * gain_D
    expert_parallel_forward(x_TD, weights_TK, idx_TK, *local, E).square().sum(dim=1).mean().backward()
    return [gain_D.grad], [w.grad for w in local]


@pytest.fixture(scope="module", params=[2, 3])
def ran(request):
    """What each rank has got, and the number of ranks."""
    size = request.param

    def work(rank):
        world = dist.group.WORLD
        alone = [dist.new_group([one]) for one in range(size)][rank]  # every rank makes every group
        seen = {}

        shared, experts = gradients(ExpertParallelMoE.from_layer(whole_layer()), tokens(rank))
        reduce_gradients(list(shared.values()), list(experts.values()), alone, world)
        seen["apart"] = copied(shared, experts)
        large, small = (
            clip_gradients(list(shared.values()), list(experts.values()), max_norm, world)
            for max_norm in (1e9, MAX_NORM)
        )
        seen["norms"] = [large, small]
        seen["clipped"] = copied(shared, experts)

        shared, experts = gradients(whole_layer(), tokens(rank))
        reduce_gradients(list(shared.values()), list(experts.values()), world, world)
        seen["copies"] = copied(shared, experts)

        shared, experts = idle_step(rank, size)
        reduce_gradients(shared, experts, alone, world)
        seen["idle"] = [grad.clone() for grad in (*shared, *experts)]
        norm = clip_gradients(shared, experts, MAX_NORM, world)
        seen["idle clipped"] = [norm, *(grad.clone() for grad in (*shared, *experts))]

        gaps = (torch.arange(6.0).view(2, 3) * (rank + 1))[:, ::2]  # not contiguous
        reduce_gradients([gaps], [], alone, world)
        seen["gaps"] = gaps

        zero = torch.zeros(3)
        seen["zero"] = [clip_gradients([zero], [zero.clone()], 1.0, world), zero]
        half = torch.full((4,), 300.0, dtype=torch.float16)  # whose squares float16 does not hold
        seen["half"] = [clip_gradients([], [half] if rank else [], 60.0, world), half]
        return seen

    return on_ranks(size, work), size


@pytest.fixture(scope="module")
def one_process(ran):
    """The layer after one process computed the mean loss over the tokens of all ranks."""
    layer = whole_layer()
    gradients(layer, torch.cat([tokens(rank) for rank in range(ran[1])], dim=1))
    return {name: p.grad.clone() for name, p in layer.named_parameters()}, layer


def compare(seen, key, expected):
    """Every rank has the gradients of what all share, and its experts: one after the other they are all experts."""
    for name, want in expected.items():
        if is_expert_weight(name):
            torch.testing.assert_close(torch.cat([one[key][name] for one in seen]), want, msg=name)
        else:
            for one in seen:
                torch.testing.assert_close(one[key][name], want, msg=name)


def test_experts_apart_get_the_gradients_of_one_process(ran, one_process):
    compare(ran[0], "apart", one_process[0])


def test_copies_of_experts_get_the_gradients_of_one_process(ran, one_process):
    """Data parallelism: every rank holds every expert, and `expert_group` is all of them."""
    for one in ran[0]:
        for name, want in one_process[0].items():
            torch.testing.assert_close(one["copies"][name], want, msg=name)


def test_all_are_clipped_by_the_norm_of_the_one_model(ran, one_process):
    """Shared gradients count once, and the experts of all ranks."""
    seen, _ = ran
    unclipped, layer = one_process
    norm = nn.utils.clip_grad_norm_(layer.parameters(), MAX_NORM).item()
    assert norm > 10 * MAX_NORM
    for one in seen:
        assert (
            one["norms"] == [pytest.approx(norm, rel=1e-6)] * 2
        )  # a norm below the limit has changed nothing
    compare(seen, "clipped", {name: grad * (MAX_NORM / norm) for name, grad in unclipped.items()})


def test_a_rank_whose_experts_got_no_token(ran):
    """Its gradients stay zeros, and it is clipped by the same norm."""
    seen, size = ran
    gain_D = torch.ones(D, dtype=torch.float64, requires_grad=True)
    experts = [
        getattr(whole_layer(), name)[:K].detach().requires_grad_() for name in ("w_gate", "w_up", "w_down")
    ]
    x_TD = torch.cat([tokens(rank)[0] for rank in range(size)]) * gain_D
    hidden = nn.functional.silu(x_TD @ experts[0]) * (x_TD @ experts[1])
    (0.5 * hidden @ experts[2]).sum(dim=0).square().sum(dim=1).mean().backward()
    want = [gain_D.grad, *(w.grad for w in experts)]
    norm = torch.stack([grad.square().sum() for grad in want]).sum().sqrt()
    for rank, one in enumerate(seen):
        torch.testing.assert_close(one["idle"][0], want[0])
        got, *clipped = one["idle clipped"]
        assert got == pytest.approx(norm.item())
        torch.testing.assert_close(clipped[0], want[0] * (MAX_NORM / norm))
        for grad, after, right in zip(one["idle"][1:], clipped[1:], want[1:], strict=True):
            if rank:
                assert not grad.any()
                assert not after.any()
            else:
                torch.testing.assert_close(grad[:K], right)
                torch.testing.assert_close(after[:K], right * (MAX_NORM / norm))


def test_a_gradient_that_is_not_contiguous_is_changed_in_place(ran):
    seen, size = ran
    mean = (size + 1) / 2
    for one in seen:
        assert torch.equal(one["gaps"], torch.arange(6.0).view(2, 3)[:, ::2] * mean)


def test_zeros_are_not_divided_by_their_norm(ran):
    for one in ran[0]:
        norm, zero = one["zero"]
        assert norm == 0
        assert torch.equal(zero, torch.zeros(3))


def test_lists_may_be_empty_and_squares_do_not_overflow(ran):
    """Rank 0 has no expert here, each other one four numbers."""
    seen, size = ran
    norm = 300 * (4 * (size - 1)) ** 0.5
    for rank, one in enumerate(seen):
        got, half = one["half"]
        assert got == pytest.approx(norm)
        want = 300.0 if rank == 0 else 300 * 60 / norm
        torch.testing.assert_close(half, torch.full((4,), want, dtype=torch.float16))
