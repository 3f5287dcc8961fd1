"""Every dispatch against the loop: the output and each gradient by name."""

import os

import pytest
import torch
from torch._subclasses import FakeTensorMode

from moe_course.moe import dispatchers as module
from moe_course.moe import init_experts, moe_loop
from moe_course.moe.casts import compute_dtype
from moe_course.moe.dispatchers import DISPATCHES, grouped_mm_runs, pick_dispatch

NAMES = ("x_TD", "weights_TK", "w_gate_EDF", "w_up_EDF", "w_down_EFD")
WAYS = ["onehot", "sorted", "grouped", "fused", "auto"]
# T, D, F, E, K. The operator behind "grouped" needs rows of 16 bytes: 8 and 12 float32 are, 5 and 3 are not.
CASES = {
    "usual": (9, 8, 12, 7, 3),
    "rows that the operator refuses": (9, 5, 3, 7, 3),
    "one expert": (6, 8, 12, 1, 1),
    "all experts": (6, 8, 12, 4, 4),
    "one token": (1, 8, 12, 7, 3),
    "one token, one expert": (1, 8, 4, 1, 1),
    "more experts than assignments": (3, 8, 12, 19, 2),
    "no token": (0, 8, 12, 7, 3),
}


def arguments(case, dtype=torch.float32, seed=0):
    """The arguments of a dispatch; slots are distinct experts, in no order."""
    T, D, F, E, K = CASES[case]
    rng = torch.Generator().manual_seed(seed)
    idx_TK = torch.rand(T, E, generator=rng).argsort(dim=1)[:, :K]
    x_TD, weights_TK = torch.randn(T, D, generator=rng), torch.rand(T, K, generator=rng)
    experts = init_experts(E, D, F, rng)
    return x_TD.to(dtype), weights_TK.to(dtype), idx_TK, *(w.to(dtype) for w in experts)


def values_and_gradients(way, args, cotangent_TD):
    """y_TD and the gradient of each floating argument, by name."""
    args = [a.detach().requires_grad_() if a.is_floating_point() else a for a in args]
    y_TD = way(*args)
    leaves = [a for a in args if a.is_floating_point()]
    gradients = torch.autograd.grad(y_TD, leaves, cotangent_TD.to(y_TD.dtype))
    return {"y_TD": y_TD.detach(), **dict(zip(NAMES, gradients, strict=True))}


def agree(way, args, rtol=2e-5, exact_args=None):
    cotangent_TD = torch.randn(args[0].shape, generator=torch.Generator().manual_seed(9)).to(args[0].dtype)
    actual = values_and_gradients(way, args, cotangent_TD)
    expected = values_and_gradients(moe_loop, exact_args or args, cotangent_TD)
    for name, value in actual.items():
        size = expected[name].abs().max().item() if expected[name].numel() else 0.0
        torch.testing.assert_close(
            value.double(),
            expected[name].double(),
            rtol=0,
            atol=rtol * size,
            msg=lambda t, n=name: f"{n}: {t}",
        )
    return actual


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_output_and_every_gradient(way, case):
    agree(DISPATCHES[way], arguments(case))


@pytest.mark.parametrize("way", WAYS)
def test_in_double_precision_they_agree_to_rounding(way):
    agree(DISPATCHES[way], arguments("usual", torch.float64), rtol=1e-13)


@pytest.mark.parametrize("way", ["loop", *WAYS])
@pytest.mark.parametrize("case", ["usual", "rows that the operator refuses"])
def test_in_bfloat16_they_agree_with_float64_within_rounding(way, case):
    args = arguments(case, torch.bfloat16)
    exact = [a.double() if a.is_floating_point() else a for a in args]
    actual = agree(DISPATCHES[way], args, rtol=4 * torch.finfo(torch.bfloat16).eps, exact_args=exact)
    assert {value.dtype for value in actual.values()} == {torch.bfloat16}


@pytest.mark.parametrize("way", ["loop", *WAYS])
def test_weights_in_float32_and_rows_in_bfloat16(way):
    """Under mixed precision the rows' dtype comes back, and each gradient has its argument's."""
    args = arguments("usual")
    args = (args[0].bfloat16(), *args[1:])
    exact = [a.double() if a.is_floating_point() else a for a in args]
    actual = agree(DISPATCHES[way], args, rtol=4 * torch.finfo(torch.bfloat16).eps, exact_args=exact)
    assert [actual[name].dtype for name in ("y_TD", *NAMES)] == 2 * [torch.bfloat16] + 4 * [torch.float32]


@pytest.mark.parametrize("way", ["loop", *WAYS])
def test_under_autocast_the_experts_compute_in_bfloat16(way):
    args = arguments("usual")
    exact = DISPATCHES["loop"](*args)
    with torch.autocast("cpu", torch.bfloat16):
        actual = DISPATCHES[way](*args)
    assert actual.dtype == torch.float32
    error = (actual - exact).abs().max() / exact.abs().max()
    assert 1e-4 < error < 4 * torch.finfo(torch.bfloat16).eps  # rounded, and not worse than rounded


@pytest.mark.parametrize("way", WAYS)
def test_experts_that_nobody_chose_have_gradients_of_zeros(way):
    args = list(arguments("usual"))
    args[2] = torch.tensor([[1, 4, 6]]).repeat(9, 1)
    gradients = agree(DISPATCHES[way], args)
    for name in NAMES[2:]:
        assert gradients[name].flatten(1).any(dim=1).tolist() == [e in (1, 4, 6) for e in range(7)]


@pytest.mark.parametrize("way", WAYS)
def test_one_expert_in_two_slots_counts_twice(way):
    args = list(arguments("usual"))
    args[2] = torch.tensor([[3, 5, 3]]).repeat(9, 1)
    agree(DISPATCHES[way], args)


@pytest.mark.parametrize("way", WAYS)
def test_strides_do_not_matter_and_inputs_stay_as_they_were(way):
    args = [a.transpose(0, -1).contiguous().transpose(0, -1) for a in arguments("usual")]
    assert not any(a.is_contiguous() for a in args)
    before = [a.clone() for a in args]
    agree(DISPATCHES[way], args)
    assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_runs_repeat_to_the_last_bit(way):
    args = arguments("usual")
    cotangent_TD = torch.ones_like(args[0])
    first, second = (values_and_gradients(DISPATCHES[way], args, cotangent_TD) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("way", WAYS)
def test_int32_indices(way):
    args = list(arguments("usual"))
    expected = moe_loop(*args)
    args[2] = args[2].int()
    torch.testing.assert_close(DISPATCHES[way](*args), expected)


@pytest.mark.parametrize("way", WAYS)
def test_shapes_that_do_not_fit(way):
    args = list(arguments("usual"))
    args[2] = args[2][:, :2]
    with pytest.raises(ValueError, match="idx_TK has K = 2, expected 3"):
        DISPATCHES[way](*args)


def on(device, dtype, T=4, K=2, D=16, F=24):
    """x_TD, idx_TK, w_EDF of 3 experts."""
    x_TD, w_EDF = (torch.empty(*shape, dtype=dtype, device=device) for shape in ((T, D), (3, D, F)))
    return x_TD, torch.empty(T, K, dtype=torch.int64, device=device), w_EDF


class TestWhatAutoPicks:
    @pytest.mark.parametrize(
        ("device", "dtype", "sizes", "expected"),
        [
            ("cpu", torch.float32, {"T": 192}, "fused"),  # 128 assignments for each of the 3 experts
            ("cpu", torch.float32, {"T": 191}, "grouped"),
            ("cpu", torch.float32, {"T": 1, "K": 1}, "grouped"),  # gradients are wanted
            ("cpu", torch.bfloat16, {"T": 192}, "grouped"),
            ("cpu", torch.float64, {}, "fused"),  # which the operator does not take
            ("cpu", torch.float32, {"D": 18}, "fused"),
            ("cpu", torch.bfloat16, {"F": 12}, "sorted"),  # 24 bytes
            ("cpu", torch.float32, {"T": 0}, "sorted"),
            ("meta", torch.bfloat16, {}, "grouped"),
            ("meta", torch.float32, {}, "sorted"),  # the operator would read the counts
            ("meta", torch.bfloat16, {"D": 20}, "sorted"),
        ],
    )
    def test_by_device_dtype_and_size(self, device, dtype, sizes, expected):
        assert pick_dispatch(*on(device, dtype, **sizes)) == expected

    @pytest.mark.parametrize(("tokens", "expected"), [(1, "fused"), (2, "grouped")])
    def test_without_gradients_only_chosen_experts_are_visited_while_they_are_few(self, tokens, expected):
        with torch.no_grad():
            assert pick_dispatch(*on("cpu", torch.float32, T=tokens, K=1)) == expected

    @pytest.mark.parametrize(
        ("capability", "dtype", "expected"),
        [
            ((7, 5), torch.float32, "sorted"),  # T4
            ((8, 0), torch.bfloat16, "sorted"),  # A100
            ((9, 0), torch.bfloat16, "grouped"),  # H100
            ((9, 0), torch.float32, "sorted"),
            ((10, 0), torch.bfloat16, "sorted"),  # B200: wrong gradients of experts without tokens
            ((12, 0), torch.bfloat16, "sorted"),
        ],
    )
    def test_by_compute_capability(self, monkeypatch, capability, dtype, expected):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        with FakeTensorMode():
            assert pick_dispatch(*on("cuda", dtype)) == expected

    def test_the_capability_is_asked_for_when_a_graph_is_made_and_is_not_in_it(self, monkeypatch):
        def asked(device):
            os.getpid()  # nothing that a graph could hold, as a question to the driver
            return 9, 0

        # PyTorch learns its own functions by name when it first compiles: the stand-in must not be taken for one.
        torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
        monkeypatch.setattr(torch.cuda, "get_device_capability", asked)
        chosen = torch.compile(
            lambda x: x + 1 if module.is_hopper(x.device) else x, backend="eager", fullgraph=True
        )
        assert chosen(torch.zeros(1)).item() == 1

    def test_autocast_decides_the_dtype(self):
        x_TD, _, w_EDF = on("cpu", torch.float32, F=12)
        assert grouped_mm_runs(x_TD, w_EDF)
        with torch.autocast("cpu", torch.bfloat16):
            assert compute_dtype(x_TD, w_EDF) == torch.bfloat16
            assert not grouped_mm_runs(x_TD, w_EDF)  # 12 bfloat16 are 24 bytes

    def test_the_operator_is_used_where_it_runs_and_only_there(self, monkeypatch):
        calls = []

        def counted(*args, **kwargs):
            calls.append(args)
            return torch.nn.functional.grouped_mm(*args, **kwargs)

        monkeypatch.setattr(module, "_grouped_mm", counted)
        DISPATCHES["grouped"](*arguments("usual"))
        assert len(calls) == 3  # gate, up and down, each for all experts at once
        DISPATCHES["grouped"](*arguments("rows that the operator refuses"))
        assert len(calls) == 3

    @pytest.mark.parametrize("way", WAYS)
    def test_what_auto_picks_is_what_runs(self, way, monkeypatch):
        if way == "auto":
            return
        monkeypatch.setattr(module, "pick_dispatch", lambda *_: way)
        monkeypatch.setitem(DISPATCHES, way, lambda *args: ("ran", way))
        assert DISPATCHES["auto"](*arguments("usual")) == ("ran", way)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_read_from_the_device(way, dtype):
    """On the meta device there are no values: asking for one raises, forward or backward."""
    x_TD, weights_TK = torch.randn(9, 8, device="meta"), torch.rand(9, 3, device="meta")
    idx_TK = torch.zeros(9, 3, dtype=torch.int64, device="meta")
    args = (x_TD, weights_TK, idx_TK, *init_experts(7, 8, 16, device="meta"))
    args = [a.to(dtype) if a.is_floating_point() else a for a in args]
    result = values_and_gradients(DISPATCHES[way], args, torch.ones_like(args[0]))
    assert {value.device.type for value in result.values()} == {"meta"}


@pytest.mark.parametrize(
    ("way", "dtype"), [("onehot", torch.float32), ("grouped", torch.bfloat16), ("auto", torch.bfloat16)]
)
def test_compiles_into_one_graph(way, dtype):
    args = arguments("usual", dtype)
    args = [*args[:3], *(torch.nn.functional.pad(w, (0, 4)) for w in args[3:5])]
    args.append(torch.nn.functional.pad(arguments("usual", dtype)[5], (0, 0, 0, 4)))  # F = 16: 32 bytes
    cotangent_TD = torch.ones_like(args[0])
    compiled = torch.compile(DISPATCHES[way], backend="aot_eager", fullgraph=True)
    actual = values_and_gradients(compiled, args, cotangent_TD)
    expected = values_and_gradients(DISPATCHES[way], args, cotangent_TD)
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], msg=lambda t, n=name: f"{n}: {t}")
