import torch


def _counts(idx_TK, num_experts):
    return [int((idx_TK == e).sum()) for e in range(num_experts)]


def compared_in_total(idx_TK, num_experts, capacity):
    n, slots = idx_TK.numel(), num_experts * capacity
    return max(0, n - slots) / n, max(0, slots - n) / slots


def share_of_the_tokens(idx_TK, num_experts, capacity):
    counts = _counts(idx_TK, num_experts)
    drop = sum(max(0, c - capacity) for c in counts)
    waste = sum(max(0, capacity - c) for c in counts)
    return drop / idx_TK.shape[0], waste / (num_experts * capacity)


def first_choices_only(idx_TK, num_experts, capacity):
    counts = torch.bincount(idx_TK[:, 0], minlength=num_experts)
    kept = counts.clamp(max=capacity).sum().item()
    return 1 - kept / idx_TK.shape[0], 1 - kept / (num_experts * capacity)


def kept_instead_of_dropped(idx_TK, num_experts, capacity):
    kept = sum(min(c, capacity) for c in _counts(idx_TK, num_experts))
    return kept / idx_TK.numel(), 1 - kept / (num_experts * capacity)


def waste_before_drops(idx_TK, num_experts, capacity):
    kept = sum(min(c, capacity) for c in _counts(idx_TK, num_experts))
    return 1 - kept / (num_experts * capacity), 1 - kept / idx_TK.numel()


def slots_minus_assignments(idx_TK, num_experts, capacity):
    counts = _counts(idx_TK, num_experts)
    over = sum(c - capacity for c in counts if c > capacity)
    slots = num_experts * capacity
    return over / idx_TK.numel(), (slots - idx_TK.numel()) / slots
