import torch


def counted_with_bincount(idx_TK, num_experts, capacity):
    counts_E = torch.bincount(idx_TK.reshape(-1), minlength=num_experts)
    dropped = (counts_E - capacity).clamp(min=0).sum() / counts_E.sum()
    empty = (capacity - counts_E).clamp(min=0).sum() / (num_experts * capacity)
    return dropped.item(), empty.item()


def counted_in_python(idx_TK, num_experts, capacity):
    counts = [int((idx_TK == e).sum()) for e in range(num_experts)]
    kept = sum(min(count, capacity) for count in counts)
    return [1.0 - kept / sum(counts), 1.0 - kept / (num_experts * capacity)]


def what_is_kept(idx_TK, num_experts, capacity):
    hot_TKE = idx_TK[..., None] == torch.arange(num_experts)
    kept = float(hot_TKE.sum((0, 1)).clamp(max=capacity).sum())
    return (idx_TK.numel() - kept) / idx_TK.numel(), (num_experts * capacity - kept) / num_experts / capacity
