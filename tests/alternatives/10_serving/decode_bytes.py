def spelled_out(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence):
    unused = num_experts
    for _ in range(batch):
        unused *= (num_experts - top_k) / num_experts
    parts = [fixed_bytes, (num_experts - unused) * num_layers * expert_bytes, batch * kv_bytes_per_sequence]
    return float(sum(parts))


def with_the_earlier_exercise(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    read = fixed_bytes + kv_bytes_per_sequence * batch
    read += num_layers * expert_bytes * expected_distinct_experts(num_experts, top_k, batch)  # noqa: F821
    return float(read)
