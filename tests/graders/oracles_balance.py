"""What the right answers of notebook 04 are, computed slowly and obviously, independent of the library."""

from __future__ import annotations

import torch

from graders import oracles


def load(idx_TK: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Count every slot of every token; divide by how many there are."""
    flat = [e for row in idx_TK.tolist() for e in row]
    return torch.tensor([flat.count(e) / len(flat) for e in range(num_experts)])


def max_violation(load_E: torch.Tensor) -> torch.Tensor:
    """The largest load over the mean load, minus 1."""
    values = load_E.tolist()
    return torch.tensor(max(values) / (sum(values) / len(values)) - 1)


def cv_squared(values_E: torch.Tensor) -> torch.Tensor:
    """Mean squared distance from the mean, over the mean squared, in float64."""
    values = values_E.double().unbind()
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values) / mean**2


def load_balancing_loss(
    probs_TE: torch.Tensor, idx_TK: torch.Tensor, mask_T: torch.Tensor | None = None
) -> torch.Tensor:
    """E·Σ f_e·P_e (Switch, eq. 4 to 6), in float64, over the rows that the mask leaves."""
    rows = range(len(probs_TE)) if mask_T is None else [t for t, kept in enumerate(mask_T.tolist()) if kept]
    f_E = load(idx_TK[list(rows)], probs_TE.shape[1]).double()
    p_E = sum(probs_TE[t].double() for t in rows) / len(rows)
    return probs_TE.shape[1] * (f_E * p_E).sum()


def router_z_loss(logits_TE: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of log(Σ exp z)² (ST-MoE, eq. 5), in float64, where exp overflows only beyond 700."""
    return sum(torch.log(torch.exp(z_E.double()).sum()) ** 2 for z_E in logits_TE) / len(logits_TE)


def biased_gates(
    scores_TE: torch.Tensor, bias_E: torch.Tensor, k: int, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense matrix of gates, which no order of slots can change, and the experts in descending order."""
    idx_TK = oracles.top_k(scores_TE.double() + bias_E.double(), k)
    chosen_TE = torch.nn.functional.one_hot(idx_TK, scores_TE.shape[1]).sum(1)
    kept_TE = scores_TE.double() * chosen_TE
    return (scale * kept_TE / kept_TE.sum(1, keepdim=True)).to(scores_TE.dtype), idx_TK


def update_bias(bias_E: torch.Tensor, counts_E: torch.Tensor, rate: float) -> torch.Tensor:
    """Expert by expert: a step up below the mean, down above it, none at it (in whole numbers)."""
    counts = counts_E.tolist()
    total, experts = sum(counts), len(counts)
    steps = [(total > experts * n) - (total < experts * n) for n in counts]
    return (bias_E.double() + rate * torch.tensor(steps)).to(bias_E.dtype)


def expert_choice(probs_TE: torch.Tensor, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each expert sorts the tokens by its probability and takes the first ones."""
    idx_EC = oracles.top_k(probs_TE.T, capacity)
    weights_EC = torch.stack([column[chosen] for column, chosen in zip(probs_TE.T, idx_EC, strict=True)])
    return weights_EC, idx_EC


def global_load(counts_ME: torch.Tensor) -> torch.Tensor:
    """Add up each expert's counts; divide by all of them."""
    totals = [sum(column) for column in counts_ME.T.tolist()]
    return torch.tensor([total / sum(totals) for total in totals])


def distinct_columns(
    tokens: int, experts: int, rng: torch.Generator, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Probabilities (T, E), rows summing to about 1, in which no two tokens tie at an expert: column values differ
    by at least 2%, so that bfloat16 keeps their order."""
    while True:
        probs_TE = torch.softmax(1.5 * torch.randn(tokens, experts, generator=rng), dim=1)
        sorted_TE = probs_TE.sort(dim=0).values
        if tokens == 1 or bool((sorted_TE[1:] / sorted_TE[:-1] > 1.02).all()):
            return probs_TE.to(dtype)


def biased_scores(
    tokens: int, experts: int, rng: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores in 0.1..0.9 and a bias, such that no two experts of a token tie and the bias matters.

    The biased scores of a token differ by 0.02 or more. For the first token, the expert of the highest score
    has the lowest biased score.
    """
    if experts == 1:
        return torch.full((tokens, 1), 0.4, dtype=dtype), torch.full((1,), -0.3, dtype=dtype)
    bias_E = 0.8 * torch.randperm(experts, generator=rng) / (experts - 1) - 0.4
    bias_E = bias_E + 0.02 * torch.rand(experts, generator=rng)
    rows = [0.5 - 0.8 * bias_E]  # so the biased scores are 0.5 + 0.2·bias, in the opposite order
    while len(rows) < tokens:
        scores_E = 0.1 + 0.8 * torch.rand(experts, generator=rng)
        if bool((scores_E + bias_E).sort().values.diff().min() > 0.02):
            rows.append(scores_E)
    order_T = torch.randperm(tokens, generator=rng)
    return torch.stack(rows)[order_T].to(dtype), bias_E.to(dtype)
