"""What the right answer is in notebook 07, slowly and obviously, independent of the library."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

FALSE_ALARM = 2e-8  # of one test of frequencies; a right answer meets fewer than fifty of them a grading


def learning_rate(step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    """Step by step: up by peak / warmup, then half a turn of a cosine, then level."""
    if step < warmup:
        return sum(peak / warmup for _ in range(step + 1))
    if step >= total - 1:
        return floor
    angle = math.pi * (step - warmup) / (total - 1 - warmup)
    return (peak + floor) / 2 + (peak - floor) / 2 * math.cos(angle)


def cross_entropy(logits_BSV: torch.Tensor, targets_BS: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of −log of the target's probability."""
    probs_BSV = torch.exp(logits_BSV) / torch.exp(logits_BSV).sum(-1, keepdim=True)
    return -torch.log(probs_BSV.gather(-1, targets_BS[..., None])).mean()


def train(
    state: dict[str, torch.Tensor],
    batches: Sequence[torch.Tensor],
    optimizer: str,
    rate: float,
    layers: int,
    lb_weight: float,
    z_weight: float,
    clip: float,
) -> tuple[list[float], dict[str, torch.Tensor], list[float]]:
    """The bigram model of the probe `train_steps`, trained in float64 with every step written out.

    Returns the cross-entropies before each update, the parameters after the last, and the gradients' norms.
    """
    weights = {name: value.double() for name, value in state.items()}
    first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    losses, norms = [], []
    for count, tokens_BS1 in enumerate(batches, 1):
        leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
        ce, objective = _losses(leaves, tokens_BS1.long(), layers, lb_weight, z_weight)
        losses.append(ce.item())
        found = torch.autograd.grad(objective, list(leaves.values()), allow_unused=True)
        grads = {
            name: torch.zeros_like(weights[name]) if g is None else g
            for name, g in zip(leaves, found, strict=True)
        }
        norms.append(math.sqrt(sum(float((g**2).sum()) for g in grads.values())))
        shrink = min(1.0, clip / norms[-1])
        for name, grad in grads.items():
            grad = grad * shrink
            if optimizer == "sgd":
                weights[name] = weights[name] - rate * grad
                continue
            first[name] = (
                0.9 * first[name] + 0.1 * grad
            )  # Adam (Kingma and Ba 2015, algorithm 1), torch's defaults
            second[name] = 0.999 * second[name] + 0.001 * grad**2
            mean, square = first[name] / (1 - 0.9**count), second[name] / (1 - 0.999**count)
            weights[name] = weights[name] - rate * mean / (square.sqrt() + 1e-8)
    return losses, {name: value.float() for name, value in weights.items()}, norms


def _losses(weights, tokens_BS1, layers, lb_weight, z_weight):
    inputs_BS, targets_BS = tokens_BS1[:, :-1], tokens_BS1[:, 1:]
    h_BSD = weights["table"][inputs_BS]
    ce = cross_entropy(h_BSD @ weights["head"], targets_BS)
    objective = ce
    for layer in range(layers):
        logit_BS = h_BSD @ weights["routers"][:, layer]
        objective = objective + lb_weight / layers * torch.exp(logit_BS).mean()
        objective = objective + z_weight / layers * (logit_BS**2).mean()
    return ce, objective


def probabilities(logits_V: torch.Tensor, temperature: float = 1.0) -> list[float]:
    """softmax(logits / temperature), one exponential at a time."""
    logits = logits_V.double().tolist()
    largest = max(logits)
    parts = [math.exp((logit - largest) / temperature) for logit in logits]
    return [part / sum(parts) for part in parts]


def nucleus(probs: Sequence[float], top_p: float) -> list[int]:
    """Token by token, likeliest first, until their probability reaches top_p. At least one."""
    chosen: list[int] = []
    for token in sorted(range(len(probs)), key=lambda v: -probs[v]):
        if chosen and sum(probs[v] for v in chosen) >= top_p:
            break
        chosen.append(token)
    return chosen


def next_token(logits_V: torch.Tensor, temperature: float, top_p: float) -> list[float]:
    """The probability with which each token must be drawn."""
    probs = probabilities(logits_V, temperature)
    inside = nucleus(probs, top_p)
    kept = [p if v in inside else 0.0 for v, p in enumerate(probs)]
    return [p / sum(kept) for p in kept]


def unlikely(tokens: Sequence[int], probs: Sequence[float]) -> int | None:
    """A token drawn much too often or too seldom for these probabilities; None where chance explains all.

    By Chernoff's bound a frequency f of n draws deviates as far from its probability p with a probability of at most
    exp(−n · KL(f, p)) to either side; FALSE_ALARM is shared by all tokens and both sides.
    """
    bound = math.log(2 * len(probs) / FALSE_ALARM)
    for token, p in enumerate(probs):
        share = sum(drawn == token for drawn in tokens) / len(tokens)
        if len(tokens) * divergence(share, p) > bound:
            return token
    return None


def divergence(f: float, p: float) -> float:
    """Relative entropy of two coins, in nats."""
    total = 0.0
    for a, b in ((f, p), (1 - f, 1 - p)):
        if a > 0:
            total += a * math.log(a / b) if b > 1e-300 else math.inf
    return total


def likeliest(tokens: Sequence[int], candidates: dict[str, Sequence[float]]) -> str:
    """The name of the distribution under which the draws are most probable, the first of equals; "none" if all rule
    them out."""
    scores = {
        name: sum(math.log(probs[token]) if probs[token] > 0 else -math.inf for token in tokens)
        for name, probs in candidates.items()
    }
    top = max(scores.values())
    return next(name for name in scores if scores[name] >= top - 1e-6) if math.isfinite(top) else "none"
