"""The fused dispatch: second gradients, what it keeps, and where it steps aside. Values: test_dispatchers.py."""

import pytest
import torch
from test_dispatchers import CASES, agree, arguments
from torch.func import functional_call, grad, jvp, vmap

from moe_course.config import MoEConfig
from moe_course.moe import MoELayer, init_experts
from moe_course.moe import dispatchers as module
from moe_course.moe.dispatchers import DISPATCHES
from moe_course.moe.fused import fused_experts, fused_runs


def floats(args):
    return [a for a in args if a.is_floating_point()]


def with_gradients(args):
    return [a.requires_grad_() if a.is_floating_point() else a for a in args]


@pytest.mark.parametrize("case", [case for case in CASES if case != "no token"])
def test_first_and_second_derivatives_are_those_of_finite_differences(case):
    args = with_gradients(arguments(case, torch.float64))
    assert fused_runs(*floats(args))
    torch.autograd.gradcheck(fused_experts, args, fast_mode=True)
    torch.autograd.gradgradcheck(fused_experts, args, fast_mode=True)


def test_a_gradient_that_nobody_asks_for_changes_no_other():
    args = with_gradients(arguments("usual"))
    everything = torch.autograd.grad(fused_experts(*args).sum(), floats(args))
    args[0].requires_grad_(False)
    rest = torch.autograd.grad(fused_experts(*args).sum(), floats(args)[1:])
    for one, other in zip(everything[1:], rest, strict=True):
        torch.testing.assert_close(one, other)


def test_an_expert_that_nobody_chose_gets_zeros_and_not_none():
    args = with_gradients(arguments("more experts than assignments"))
    idle = torch.ones(19, dtype=torch.bool)
    idle[args[2]] = False
    for gradient in torch.autograd.grad(fused_experts(*args).sum(), floats(args)[2:]):
        assert gradient[idle].count_nonzero() == 0
        assert gradient[~idle].count_nonzero() > 0


def test_more_than_256_experts_are_sorted_right():
    rng = torch.Generator().manual_seed(0)
    idx_TK = torch.rand(50, 300, generator=rng).argsort(dim=1)[:, :3]
    x_TD, weights_TK = torch.randn(50, 8, generator=rng), torch.rand(50, 3, generator=rng)
    agree(DISPATCHES["fused"], (x_TD, weights_TK, idx_TK, *init_experts(300, 8, 4, rng)))


def test_inputs_that_are_not_contiguous():
    x_TD, weights_TK, idx_TK, *experts = arguments("usual")
    strided = [t.T.contiguous().T for t in (x_TD, weights_TK, idx_TK)]
    transposed = [w.transpose(1, 2).contiguous().transpose(1, 2) for w in experts]
    assert not any(t.is_contiguous() for t in (*strided, *transposed))
    agree(DISPATCHES["fused"], (*strided, *transposed))


def test_it_keeps_gate_and_up_and_neither_the_gathered_tokens_nor_the_outputs_of_experts():
    args = with_gradients(arguments("usual"))
    known = {a.data_ptr() for a in args}
    sizes = []

    def pack(tensor):
        if tensor.data_ptr() not in known and tensor.is_floating_point():
            sizes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fused_experts(*args)
    assert sizes == [(27, 12)] * 2  # N = 9 · 3 rows of F = 12


@pytest.mark.parametrize("expert", [-1, 7])
def test_an_unknown_expert_is_named(expert):
    args = arguments("usual")
    args[2][4, 1] = expert
    with pytest.raises(ValueError, match=f"names expert {expert}, the experts are 0..6"):
        fused_experts(*args)


class TestWhereItStepsAside:
    """There `DISPATCHES["fused"]` gives what the other ways give."""

    @pytest.fixture
    def aside(self, monkeypatch):
        def refuse(*_):
            raise AssertionError("fused_experts was called")

        monkeypatch.setattr(module, "fused_experts", refuse)

    def test_mixed_dtypes(self, aside):
        x_TD, weights_TK, *rest = arguments("usual", torch.bfloat16)
        assert DISPATCHES["fused"](x_TD, weights_TK.float(), *rest).dtype == torch.bfloat16

    def test_autocast(self, aside):
        args = arguments("usual")
        with torch.autocast("cpu", torch.bfloat16):
            DISPATCHES["fused"](*args)

    def test_forward_mode(self, aside):
        args = arguments("usual", torch.float64)
        moved = torch.ones_like(args[0])
        _, slope = jvp(lambda x_TD: DISPATCHES["fused"](x_TD, *args[1:]), (args[0],), (moved,))
        _, expected = jvp(lambda x_TD: DISPATCHES["onehot"](x_TD, *args[1:]), (args[0],), (moved,))
        torch.testing.assert_close(slope, expected)

    def test_gradients_of_torch_func(self, aside):
        args = arguments("usual", torch.float64)
        slopes = [
            grad(lambda x_TD, way=way: DISPATCHES[way](x_TD, *args[1:]).pow(2).sum())(args[0])
            for way in ("fused", "onehot")
        ]
        torch.testing.assert_close(*slopes)

    def test_the_meta_device(self, aside):
        args = [a.to("meta") for a in arguments("usual")]
        assert DISPATCHES["fused"](*args).device.type == "meta"


def test_a_layer_with_it_works_with_functional_call():
    layer = MoELayer(MoEConfig(d_model=8, d_ff=12, num_experts=7, top_k=3))
    x_BSD = torch.randn(2, 5, 8)
    doubled = {name: 2 * p for name, p in layer.named_parameters()}
    y_BSD, _ = functional_call(layer, doubled, (x_BSD,))
    assert not torch.allclose(y_BSD, layer(x_BSD)[0])


def test_per_sample_gradients_by_vmap_over_the_onehot_dispatch_still_work():
    """vmap needs shapes that hang on no value: the configuration asks for that dispatch by name."""
    layer = MoELayer(MoEConfig(d_model=8, d_ff=12, num_experts=7, top_k=3, dispatch="onehot"))
    x_NBSD = torch.randn(4, 1, 5, 8)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, x_BSD):
        return functional_call(layer, parameters, (x_BSD,))[0].pow(2).sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x_NBSD)
    whole = grad(lambda p: sum(loss(p, x_BSD) for x_BSD in x_NBSD))(parameters)
    for name in ("w_gate", "w_down", "router"):
        torch.testing.assert_close(each[name].sum(dim=0), whole[name], rtol=1e-4, atol=1e-5)
