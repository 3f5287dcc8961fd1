"""One token must not pay for experts that it did not choose. Operations are counted here, never timed."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moe_course.moe.dispatch import _in_tiles, grouped_ffn
from moe_course.moe.dispatchers import DISPATCHES
from moe_course.moe.experts import init_experts

E, K, D, F = 7, 3, 8, 16
aten = torch.ops.aten


class Touched(TorchDispatchMode):
    """Which experts' weights are read inside, and how many matrix products there are (a batch counts one each)."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = {w.untyped_storage().data_ptr(): w for w in weights}
        self.experts, self.products = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (aten.mm, aten.addmm):
            self.products += 1
        if func.overloadpacket in (aten.bmm, aten.baddbmm):
            self.products += args[0].shape[0]
        if not func.is_view:
            for arg in args:
                if isinstance(arg, torch.Tensor) and arg.untyped_storage().data_ptr() in self.weights:
                    self.experts |= self.read_by(func, arg, args)
        return out

    def read_by(self, func, arg, args):
        whole = self.weights[arg.untyped_storage().data_ptr()]
        if arg.numel() < whole.numel():
            return {arg.storage_offset() // whole[0].numel()}
        if func.overloadpacket is aten.index:
            return set(args[1][0].tolist())
        return set(range(len(whole)))


def a_token(tokens=1):
    weights = init_experts(E, D, F, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    weights_TK = torch.rand(tokens, K, generator=rng)
    idx_TK = torch.stack([torch.randperm(E - 1, generator=rng)[:K] for _ in range(tokens)])  # never the last
    return torch.randn(tokens, D, generator=rng), weights_TK, idx_TK, *weights


@pytest.mark.parametrize("name", ["auto", "fused", "sorted"])
def test_only_the_chosen_experts_are_touched(name):
    args = a_token()
    with torch.no_grad(), Touched(*args[3:]) as seen:
        y_TD = DISPATCHES[name](*args)
    assert seen.experts == set(args[2].flatten().tolist())
    assert seen.products == 3 * K
    torch.testing.assert_close(y_TD, DISPATCHES["loop"](*args))


def test_all_experts_would_be_noticed():
    args = a_token()
    with torch.no_grad(), Touched(*args[3:]) as seen:
        DISPATCHES["onehot"](*args)
    assert seen.experts == set(range(E))
    assert seen.products == 3 * E


@pytest.mark.parametrize("tokens", [1, 2])
def test_accelerators_gather_only_the_chosen_experts(tokens):
    """What `sorted` does where it may not read counts, run on the CPU: K experts for a token, and no padding."""
    x_TD, _, idx_TK, *weights = a_token(tokens)
    order_N = idx_TK.flatten().argsort()
    counts_E = torch.bincount(idx_TK.flatten(), minlength=E)
    x_ND = x_TD[order_N // K]
    with torch.no_grad(), Touched(*weights) as seen:
        y_ND = _in_tiles(x_ND, counts_E, *weights)
    assert seen.experts == set(idx_TK.flatten().tolist())
    assert seen.products == 3 * K * tokens
    torch.testing.assert_close(y_ND, grouped_ffn(x_ND, counts_E, *weights))
