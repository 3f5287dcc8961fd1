import math


def _checked(num_tokens, num_experts, top_k, factor):
    if num_tokens < 1 or num_experts < 1 or not 1 <= top_k <= num_experts or factor <= 0:
        raise ValueError((num_tokens, num_experts, top_k, factor))


def tokens_counted(num_tokens, num_experts, top_k, factor):
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(factor * num_tokens / num_experts)


def rounded_down(num_tokens, num_experts, top_k, factor):
    _checked(num_tokens, num_experts, top_k, factor)
    return int(num_tokens * top_k * factor // num_experts)


def factor_forgotten(num_tokens, num_experts, top_k, factor):
    _checked(num_tokens, num_experts, top_k, factor)
    return -(-num_tokens * top_k // num_experts)


def share_rounded_before_the_factor(num_tokens, num_experts, top_k, factor):
    _checked(num_tokens, num_experts, top_k, factor)
    fair = -(-num_tokens * top_k // num_experts)
    return math.ceil(fair * factor)


def a_float_returned(num_tokens, num_experts, top_k, factor):
    _checked(num_tokens, num_experts, top_k, factor)
    return float(math.ceil(num_tokens * top_k / num_experts * factor))


def nothing_checked(num_tokens, num_experts, top_k, factor):
    return math.ceil(num_tokens * top_k * factor / num_experts)
