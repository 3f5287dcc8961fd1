def two_matrices(d_model, d_ff):
    up = d_model * d_ff
    down = d_ff * d_model
    return up + down


def biases_counted(d_model, d_ff):
    gate = d_model * d_ff + d_ff
    up = d_model * d_ff + d_ff
    down = d_ff * d_model + d_model
    return gate + up + down


def gate_counted_twice(d_model, d_ff):
    gate, silu, up, down = (d_model * d_ff for _ in range(4))
    return gate + silu + up + down


def four_times_as_wide(d_model, d_ff):
    hidden = 4 * d_model
    return 3 * d_model * hidden


def sides_added(d_model, d_ff):
    return sum(d_model + d_ff for _ in ("gate", "up", "down"))


def as_a_float(d_model, d_ff):
    return float(d_model) * d_ff * 3
