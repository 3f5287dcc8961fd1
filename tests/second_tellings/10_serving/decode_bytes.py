def _used(num_experts, top_k, batch):
    unused = float(num_experts)
    for _ in range(batch):
        unused -= unused * top_k / num_experts
    return num_experts - unused


def fixed_weights_for_each_sequence(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    total = num_layers * expert_bytes * _used(num_experts, top_k, batch)
    for _ in range(batch):
        total += fixed_bytes + kv
    return total


def experts_for_each_token(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    per_token = num_layers * top_k * expert_bytes + kv
    return float(fixed_bytes + batch * per_token)


def all_choices_differ(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    distinct = batch * top_k if batch * top_k < num_experts else num_experts
    return float(fixed_bytes + distinct * num_layers * expert_bytes + kv * batch)


def every_expert_read(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    weights = fixed_bytes + num_experts * num_layers * expert_bytes
    return float(weights + kv * batch)


def batch_ignored(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    active = fixed_bytes + top_k * num_layers * expert_bytes
    return float(active + kv * batch)


def one_layer(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    return float(sum((fixed_bytes, expert_bytes * _used(num_experts, top_k, batch), kv * batch)))


def cache_forgotten(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    return float(fixed_bytes + expert_bytes * num_layers * _used(num_experts, top_k, batch))


def one_cache_for_all(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    return float(fixed_bytes + kv + expert_bytes * num_layers * _used(num_experts, top_k, batch))


def cache_for_each_layer(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv):
    in_layers = num_layers * (expert_bytes * _used(num_experts, top_k, batch) + batch * kv)
    return float(fixed_bytes + in_layers)
