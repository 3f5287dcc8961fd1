import torch


def sort_and_bincount(idx_TK, num_experts):
    flat_N = idx_TK.flatten()
    return flat_N.sort(stable=True).indices, torch.bincount(flat_N, minlength=num_experts)


def in_plain_python(idx_TK, num_experts):
    flat = [e for row in idx_TK.tolist() for e in row]
    order = sorted(range(len(flat)), key=flat.__getitem__)
    return torch.tensor(order), torch.tensor([flat.count(e) for e in range(num_experts)])


def one_hot_and_nonzero(idx_TK, num_experts):
    mask_EN = (idx_TK.reshape(1, -1) == torch.arange(num_experts)[:, None]).int()
    return mask_EN.nonzero()[:, 1].int(), mask_EN.sum(1)


def running_counts(idx_TK, num_experts):
    """Counting sort: where a group begins, plus the place within it."""
    mask_NE = torch.nn.functional.one_hot(idx_TK.reshape(-1), num_experts)
    counts_E = mask_NE.sum(0)
    place_N = ((counts_E.cumsum(0) - counts_E + mask_NE.cumsum(0) - 1) * mask_NE).sum(1)
    return torch.empty_like(place_N).scatter(0, place_N, torch.arange(len(place_N))), counts_E


def counts_added_up(idx_TK, num_experts):
    """Ones added at each expert's place, and a key in which the number of the assignment breaks the ties."""
    flat_N = idx_TK.reshape(-1)
    counts_E = torch.zeros(num_experts, dtype=torch.int32).index_add(0, flat_N, torch.ones_like(flat_N).int())
    return (flat_N * len(flat_N) + torch.arange(len(flat_N))).argsort().to(torch.int16), counts_E.to(
        torch.uint8
    )
