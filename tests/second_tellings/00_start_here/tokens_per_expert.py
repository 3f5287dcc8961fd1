def top_k_left_out(num_tokens, top_k, num_experts):
    share = 1 / num_experts
    return num_tokens * share


def upside_down(num_tokens, top_k, num_experts):
    return num_experts / (num_tokens * top_k)


def divided_by_k(num_tokens, top_k, num_experts):
    return num_tokens / (num_experts * top_k)


def rounded_down(num_tokens, top_k, num_experts):
    return float(num_tokens * top_k // num_experts)
