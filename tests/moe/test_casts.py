"""Weights that are cast once for all pieces of a step."""

import torch

from moe_course.moe.casts import cast, casts_kept

CPU = torch.device("cpu")


def test_a_weight_is_cast_once_and_its_gradients_add_up():
    w = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    xs = [torch.full((2, 4), value) for value in (1.0, 3.0)]
    with casts_kept(CPU):
        kept = [cast(w, torch.bfloat16) for _ in xs]
        for x, narrow in zip(xs, kept, strict=True):
            (x.bfloat16() @ narrow).sum().backward()
    assert kept[0] is kept[1]
    assert w.grad.dtype == torch.float32
    assert torch.equal(w.grad, torch.full((4, 3), 8.0))


def test_nothing_outlives_the_context():
    w = torch.ones(2, requires_grad=True)
    with casts_kept(CPU):
        before = cast(w, torch.bfloat16)
    with torch.no_grad():
        w.mul_(2)
    with casts_kept(CPU):
        assert torch.equal(cast(w, torch.bfloat16), 2 * before)
    assert cast(w, torch.float32) is w
    assert cast(w, torch.bfloat16) is not cast(w, torch.bfloat16)


def test_without_gradients_a_cast_is_not_kept_for_those_who_need_them():
    w = torch.ones(2, requires_grad=True)
    with casts_kept(CPU):
        with torch.no_grad():
            assert not cast(w, torch.bfloat16).requires_grad
        assert cast(w, torch.bfloat16).requires_grad


def test_autocast_keeps_its_casts_from_piece_to_piece():
    layer = torch.nn.Linear(3, 3, bias=False)
    seen = []
    with casts_kept(CPU):
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                y = layer(torch.ones(1, 3))
            seen.append(y.grad_fn.next_functions[1][0])  # where the weight's gradient goes: to the cast
            y.sum().backward()
    assert seen[0] is not None
    assert layer.weight.grad.dtype == torch.float32
    assert torch.equal(layer.weight.grad, torch.full((3, 3), 2.0))
