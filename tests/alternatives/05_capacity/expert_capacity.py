import math


def ceiling_of_a_float(num_tokens, num_experts, top_k, factor):
    if num_tokens <= 0 or num_experts <= 0 or factor <= 0 or not 1 <= top_k <= num_experts:
        raise ValueError((num_tokens, num_experts, top_k, factor))
    return math.ceil(num_tokens * top_k / num_experts * factor)


def negated_floor(num_tokens, num_experts, top_k, factor):
    if min(num_tokens, num_experts, top_k) < 1:
        raise ValueError(f"sizes {num_tokens}, {num_experts}, {top_k}")
    if top_k > num_experts or not factor > 0:
        raise ValueError(f"top_k {top_k} of {num_experts}, factor {factor}")
    return int(-(-factor * num_tokens * top_k // num_experts))


def share_first(num_tokens, num_experts, top_k, factor):
    if not (num_tokens > 0 and num_experts >= top_k > 0 and factor > 0):
        raise ValueError("sizes and factor must be positive, top_k at most num_experts")
    slots = factor * (top_k / num_experts) * num_tokens
    whole = int(slots)
    return whole if whole == slots else whole + 1
