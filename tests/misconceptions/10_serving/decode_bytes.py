from moe_course.grading.judge.catalogue import caught_by


def _distinct(num_experts, top_k, batch):
    return num_experts * (1 - (1 - top_k / num_experts) ** batch)


@caught_by("fixed")
def fixed_weights_for_each_sequence(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """Why does a server decode many sequences together, if each of them reads all weights again?"""
    experts = num_layers * _distinct(num_experts, top_k, batch) * expert_bytes
    return float(batch * (fixed_bytes + kv_bytes_per_sequence) + experts)


@caught_by("fixed")
def fixed_weights_for_each_layer(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """Are fixed_bytes those of one layer, or of the whole model?"""
    experts = _distinct(num_experts, top_k, batch) * expert_bytes
    return float(num_layers * (fixed_bytes + experts) + batch * kv_bytes_per_sequence)


@caught_by("experts")
def experts_for_each_token(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """Two tokens chose the same expert. How often is it read?"""
    return float(fixed_bytes + num_layers * batch * top_k * expert_bytes + batch * kv_bytes_per_sequence)


@caught_by("experts")
def all_choices_differ(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """min(B · K, E) is the most that a step can read. What does it read on average?"""
    distinct = min(batch * top_k, num_experts)
    return float(fixed_bytes + num_layers * distinct * expert_bytes + batch * kv_bytes_per_sequence)


@caught_by("experts")
def every_expert_read(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """All experts lie in memory. Which of them does a step read?"""
    return float(fixed_bytes + num_layers * num_experts * expert_bytes + batch * kv_bytes_per_sequence)


@caught_by("experts")
def batch_ignored(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence):
    """K experts are what one token reads. And the other tokens of the batch?"""
    return float(fixed_bytes + num_layers * top_k * expert_bytes + batch * kv_bytes_per_sequence)


@caught_by("experts")
def one_layer(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence):
    """How many layers have experts of their own?"""
    return float(
        fixed_bytes + _distinct(num_experts, top_k, batch) * expert_bytes + batch * kv_bytes_per_sequence
    )


@caught_by("experts")
def one_expert_of_each_layer(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """You count one expert of each layer. How many of its experts does a step read?"""
    return float(fixed_bytes + num_layers * expert_bytes + batch * kv_bytes_per_sequence)


@caught_by("cache")
def one_cache_for_all(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """Do all sequences of a batch have the same past?"""
    experts = num_layers * _distinct(num_experts, top_k, batch) * expert_bytes
    return float(fixed_bytes + experts + kv_bytes_per_sequence)


@caught_by("cache")
def cache_for_each_layer(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """Are kv_bytes_per_sequence those of one layer, or of all?"""
    experts = num_layers * _distinct(num_experts, top_k, batch) * expert_bytes
    return float(fixed_bytes + experts + num_layers * batch * kv_bytes_per_sequence)


@caught_by("cache")
def cache_forgotten(fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence):
    """What else than weights does attention read in every step?"""
    return float(fixed_bytes + num_layers * _distinct(num_experts, top_k, batch) * expert_bytes)


@caught_by("float", form=True)
def whole_where_it_is_whole(
    fixed_bytes, expert_bytes, num_layers, num_experts, top_k, batch, kv_bytes_per_sequence
):
    """Sometimes you return an int, and sometimes a float. Can a caller rely on one type?"""
    experts = num_layers * _distinct(num_experts, top_k, batch) * expert_bytes
    total = fixed_bytes + experts + batch * kv_bytes_per_sequence
    return round(total) if abs(total - round(total)) < 1e-9 else total
