"""What the right answer is for notebook 03, computed slowly and obviously, independent of the library."""

from __future__ import annotations

import torch

from graders import oracles


def plan_dispatch(idx_TK: torch.Tensor, num_experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Expert after expert, its assignments in token-major order; and how many it has."""
    chosen = [e for row in idx_TK.tolist() for e in row]
    heaps = [[n for n, e in enumerate(chosen) if e == expert] for expert in range(num_experts)]
    order = [n for heap in heaps for n in heap]
    return torch.tensor(order, dtype=torch.int64), torch.tensor([len(heap) for heap in heaps])


def gather_tokens(x_TD: torch.Tensor, order_N: torch.Tensor, top_k: int) -> torch.Tensor:
    """Row by row, the token that the assignment belongs to."""
    pairs = [(t, k) for t in range(len(x_TD)) for k in range(top_k)]
    return torch.stack([x_TD[pairs[n][0]] for n in order_N.tolist()])


def grouped_ffn(
    x_ND: torch.Tensor,
    counts_E: torch.Tensor,
    w_gate_EDF: torch.Tensor,
    w_up_EDF: torch.Tensor,
    w_down_EFD: torch.Tensor,
) -> torch.Tensor:
    """Row by row, with the weights of the expert whose turn it is."""
    owners = [e for e, count in enumerate(counts_E.tolist()) for _ in range(count)]
    rows = [
        oracles.swiglu(x_D[None].double(), w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])[0]
        for x_D, e in zip(x_ND, owners, strict=True)
    ]
    return torch.stack(rows).to(x_ND.dtype)


def combine(y_ND: torch.Tensor, order_N: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """Token by token: look each of its assignments up in the plan, weight its row, add."""
    place = {n: row for row, n in enumerate(order_N.tolist())}
    slots = weights_TK.shape[1]
    rows = [
        sum(weights_K[k].double() * y_ND[place[t * slots + k]].double() for k in range(slots))
        for t, weights_K in enumerate(weights_TK)
    ]
    return torch.stack(rows).to(y_ND.dtype)


def moe_layer(
    x_BSD: torch.Tensor,
    router_DE: torch.Tensor,
    w_gate_EDF: torch.Tensor,
    w_up_EDF: torch.Tensor,
    w_down_EFD: torch.Tensor,
    k: int,
    renormalize: bool,
) -> torch.Tensor:
    """The whole layer in float64, in x's dtype; differentiable. `chosen_experts` says who was chosen."""
    x_TD = x_BSD.reshape(-1, x_BSD.shape[-1]).double()
    probs_TE = oracles.softmax(x_TD @ router_DE.double())
    weights_TK, idx_TK = oracles.top_k_gate(probs_TE, k, renormalize)
    y_TD = oracles.moe(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    return y_TD.reshape(x_BSD.shape).to(x_BSD.dtype)


def chosen_experts(x_BSD: torch.Tensor, router_DE: torch.Tensor, k: int) -> torch.Tensor:
    """idx_TK, in descending probability."""
    x_TD = x_BSD.reshape(-1, x_BSD.shape[-1]).double()
    return oracles.top_k(x_TD @ router_DE.double(), k)


def routing(
    tokens: int, experts: int, k: int, rng: torch.Generator, among: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Random idx_TK: k different experts for each token, each of `among` chosen at least once."""
    names = torch.tensor(among or range(experts))
    while True:
        idx_TK = torch.stack([names[torch.randperm(len(names), generator=rng)[:k]] for _ in range(tokens)])
        if len(idx_TK.unique()) == len(names):
            return idx_TK


def counts(experts: int, rng: torch.Generator, empty: tuple[int, ...] = ()) -> torch.Tensor:
    """Random counts_E, all different, with 0 for the experts in `empty`."""
    counts_E = 1 + torch.randperm(experts + 1, generator=rng)[:experts]
    counts_E[list(empty)] = 0
    return counts_E


def experts(number: int, d_model: int, d_ff: int, rng: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Random (w_gate_EDF, w_up_EDF, w_down_EFD) that keep the size of what passes through them."""
    shapes = ((number, d_model, d_ff), (number, d_model, d_ff), (number, d_ff, d_model))
    return tuple(torch.randn(*shape, generator=rng) / shape[1] ** 0.5 for shape in shapes)


def clear_tokens(
    batch: int, length: int, router_DE: torch.Tensor, rng: torch.Generator, gap: float = 0.05
) -> torch.Tensor:
    """x_BSD whose logits lie at least `gap` apart for every token, so that no choice hangs on rounding."""
    tokens = batch * length
    scale = 1.0
    while True:
        x_TD = scale * torch.randn(200 * tokens, len(router_DE), generator=rng)
        logits_TE = (x_TD.double() @ router_DE.double()).sort(dim=1).values
        clear_T = (logits_TE.diff(dim=1) > gap).all(dim=1)
        if clear_T.sum() >= tokens:
            return x_TD[clear_T][:tokens].reshape(batch, length, -1)
        scale *= 2  # two experts are so alike that only long tokens tell them apart


def close_calls(tokens: int, router_DE: torch.Tensor, k: int, rng: torch.Generator) -> torch.Tensor:
    """x_TD in bfloat16 whose k-th and next logits differ in float32, but hardly in bfloat16.

    They are larger than 1, where neighbours in bfloat16 are 0.0078 apart, and differ by 0.0003 to 0.002.
    """
    x_TD = torch.randn(120_000, len(router_DE), generator=rng).bfloat16()
    top_TE = (x_TD.double() @ router_DE.double()).sort(dim=1, descending=True).values
    gap_T = top_TE[:, k - 1] - top_TE[:, k]
    close_T = (gap_T > 3e-4) & (gap_T < 2e-3) & (top_TE[:, k] > 1)
    return x_TD[close_T][:tokens]
