import math


def by_logarithms(num_experts, top_k, batch):
    if top_k == num_experts:
        return float(num_experts)
    return -num_experts * math.expm1(batch * math.log1p(-top_k / num_experts))


def one_token_after_another(num_experts, top_k, batch):
    used = 0.0
    for _ in range(batch):
        used += (num_experts - used) * top_k / num_experts
    return used


def both_outcomes(num_experts, top_k, batch):
    hit = top_k / num_experts
    return (
        math.fsum(
            num_experts * math.comb(batch, b) * hit**b * (1 - hit) ** (batch - b) for b in range(1, batch + 1)
        )
        if batch < 400
        else float(num_experts * (1 - math.pow(1 - hit, batch)))
    )
