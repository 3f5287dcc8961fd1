"""The layer on a GPU: the same numbers, the same gradients, and nothing that makes the host wait."""

import contextlib

import pytest
import torch

from moe_course.moe import MoEConfig, MoELayer, init_experts, moe_loop
from moe_course.moe.dispatchers import DISPATCHES, pick_dispatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]

T, D, F, E, K = 70, 48, 72, 9, 3
NAMES = ("x_TD", "weights_TK", "w_gate_EDF", "w_up_EDF", "w_down_EFD")
TRAFFIC = [
    {}, {"dispatch": "onehot"}, {"dispatch": "sorted"}, {"dispatch": "grouped"},
    *({"capacity_factor": 0.8, "fill": fill} for fill in ("choice", "token", "priority")),
]  # fmt: skip


@contextlib.contextmanager
def no_waiting():
    """Within, anything that makes the host wait for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def arguments(dtype):
    """The arguments of a dispatch, in float64 on the CPU and in `dtype` on the GPU. Nobody chose expert 4."""
    rng = torch.Generator().manual_seed(0)
    scores_TE = torch.rand(T, E, generator=rng)
    scores_TE[:, 4] = -1
    idx_TK = scores_TE.argsort(dim=1, descending=True)[:, :K]
    x_TD, weights_TK = torch.randn(T, D, generator=rng), torch.rand(T, K, generator=rng)
    args = [x_TD, weights_TK, idx_TK, *init_experts(E, D, F, rng)]
    moved = [(a.to(dtype) if a.is_floating_point() else a).cuda() for a in args]
    exact = [(a.double() if a.is_floating_point() else a).cpu() for a in moved]
    return exact, moved


def values_and_gradients(way, args):
    args = [a.detach().requires_grad_() if a.is_floating_point() else a for a in args]
    y_TD = way(*args)
    leaves = [a for a in args if a.is_floating_point()]
    cotangent_TD = torch.linspace(-1, 1, y_TD.numel(), dtype=y_TD.dtype, device=y_TD.device).view_as(y_TD)
    return dict(zip(("y_TD", *NAMES), (y_TD, *torch.autograd.grad(y_TD, leaves, cotangent_TD)), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("way", DISPATCHES)
def test_every_dispatch_equals_the_loop_in_double_precision(way, dtype):
    exact, moved = arguments(dtype)
    expected = values_and_gradients(moe_loop, exact)
    # What the allocator hands out next holds garbage: a gradient that is never written shows.
    torch.full((E, D, 2 * F), torch.nan, device="cuda", dtype=dtype)
    actual = values_and_gradients(DISPATCHES[way], moved)
    for name, value in actual.items():
        tolerance = 8 * torch.finfo(dtype).eps * expected[name].abs().max().item()
        torch.testing.assert_close(
            value.double().cpu(), expected[name], rtol=0, atol=tolerance, msg=lambda t, n=name: f"{n}: {t}"
        )
    for name in NAMES[2:]:
        assert not actual[name][4].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("way", ["auto", "onehot", "sorted", "grouped"])
def test_the_host_does_not_wait(way, dtype):
    _, moved = arguments(dtype)
    values_and_gradients(DISPATCHES[way], moved)  # the first call of a kernel may load it
    with no_waiting():
        values_and_gradients(DISPATCHES[way], moved)


def test_the_check_for_waiting_works():
    with pytest.raises(RuntimeError), no_waiting():
        torch.ones(3, device="cuda").sum().item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_auto_picks(dtype):
    _, moved = arguments(dtype)
    hopper = torch.cuda.get_device_capability() == (9, 0)
    expected = "grouped" if hopper and dtype == torch.bfloat16 else "sorted"
    assert pick_dispatch(moved[0], moved[2], moved[3]) == expected


def step(layer, x_BSD, **autocast):
    with torch.autocast("cuda", torch.bfloat16, enabled=bool(autocast)):
        y_BSD, stats = layer(x_BSD)
    (y_BSD.float().square().sum() + stats.lb_loss + stats.z_loss).backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    layer.zero_grad()
    return {"y_BSD": y_BSD, "idx_TK": stats.idx_TK, "lb_loss": stats.lb_loss, **gradients}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("traffic", TRAFFIC, ids=str)
def test_a_training_step_without_waiting_and_repeatable(traffic, autocast):
    config = MoEConfig(
        d_model=D, d_ff=F, num_experts=E, top_k=K, bias_rate=0.1, num_shared=1, d_ff_shared=16, **traffic
    )
    layer = MoELayer(config, torch.Generator().manual_seed(0)).cuda()
    layer = layer if autocast else layer.bfloat16()
    x_BSD = torch.randn(2, 35, D, device="cuda", dtype=layer.w_gate.dtype)
    options = {"autocast": True} if autocast else {}
    first = step(layer, x_BSD, **options)
    with no_waiting():
        second = step(layer, x_BSD, **options)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("traffic", TRAFFIC, ids=str)
def test_the_gpu_agrees_with_the_cpu(traffic):
    config = MoEConfig(d_model=D, d_ff=F, num_experts=E, top_k=K, **traffic)
    layer = MoELayer(config, torch.Generator().manual_seed(0))
    x_BSD = torch.randn(2, 35, D, generator=torch.Generator().manual_seed(1))
    expected = step(layer, x_BSD)
    actual = step(layer.cuda(), x_BSD.cuda())
    for name, value in actual.items():
        tolerance = 1e-4 * expected[name].abs().max().item()
        torch.testing.assert_close(value.cpu(), expected[name], rtol=0, atol=tolerance)
