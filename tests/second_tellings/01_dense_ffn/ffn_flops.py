def multiply_adds_counted_once(num_tokens, d_model, d_ff):
    per_matrix = num_tokens * d_model * d_ff
    return per_matrix * 3


def two_matrices(num_tokens, d_model, d_ff):
    up = 2 * num_tokens * d_model * d_ff
    down = 2 * num_tokens * d_ff * d_model
    return up + down


def backward_included(num_tokens, d_model, d_ff):
    forward = 6 * d_model * d_ff * num_tokens
    backward = 2 * forward
    return forward + backward


def tokens_forgotten(num_tokens, d_model, d_ff):
    return 2 * sum([d_model * d_ff, d_model * d_ff, d_ff * d_model])


def every_pair_of_tokens(num_tokens, d_model, d_ff):
    return 6 * num_tokens**2 * d_model * d_ff


def elementwise_work_included(num_tokens, d_model, d_ff):
    products = 6 * num_tokens * d_model * d_ff
    return products + 2 * num_tokens * d_ff


def as_a_float(num_tokens, d_model, d_ff):
    return 6.0 * num_tokens * d_model * d_ff
