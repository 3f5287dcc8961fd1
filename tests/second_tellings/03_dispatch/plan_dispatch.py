import torch


def tokens_counted_once(idx_TK, num_experts):
    order = torch.sort(idx_TK.flatten(), stable=True).indices
    counts = torch.zeros(num_experts, dtype=torch.long)
    for e in idx_TK[:, 0].tolist():
        counts[e] += 1
    return order, counts


def ends_for_counts(idx_TK, num_experts):
    flat = idx_TK.reshape(-1)
    ends = torch.tensor([int((flat <= e).sum()) for e in range(num_experts)])
    return flat.argsort(stable=True), ends


def slots_before_tokens(idx_TK, num_experts):
    flat = torch.cat([idx_TK[:, k] for k in range(idx_TK.shape[1])])
    return flat.argsort(stable=True), flat.bincount(minlength=num_experts)


def places_instead_of_order(idx_TK, num_experts):
    flat = idx_TK.flatten()
    order = flat.argsort(stable=True)
    place = torch.zeros_like(order)
    for new, old in enumerate(order.tolist()):
        place[old] = new
    return place, torch.bincount(flat, minlength=num_experts)


def largest_expert_first(idx_TK, num_experts):
    flat = idx_TK.flatten()
    order = torch.argsort(-flat, stable=True)
    return order, torch.bincount(flat, minlength=num_experts)


def tokens_for_assignments(idx_TK, num_experts):
    order, counts = [], []
    for e in range(num_experts):
        tokens = [t for t, row in enumerate(idx_TK.tolist()) for x in row if x == e]
        order += tokens
        counts.append(len(tokens))
    return torch.tensor(order), torch.tensor(counts)


def counts_as_long_as_the_largest_index(idx_TK, num_experts):
    flat = idx_TK.reshape(-1)
    counts = torch.stack([(flat == e).sum() for e in range(int(flat.max()) + 1)])
    return torch.argsort(flat, stable=True), counts
