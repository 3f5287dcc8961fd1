import numpy as np


def share_first(num_tokens, top_k, num_experts):
    return num_tokens / num_experts * top_k


def counted(num_tokens, top_k, num_experts):
    assignments = sum(top_k for _ in range(num_tokens))
    return float(np.float64(assignments) / num_experts)
