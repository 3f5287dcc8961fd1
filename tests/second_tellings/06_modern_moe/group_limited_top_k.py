import torch


def bias_ignored(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE.reshape(T, num_groups, size)
    strength = s.sort(-1, descending=True).values[..., :2].sum(-1)
    keep = torch.zeros_like(strength)
    keep.scatter_(1, strength.topk(top_groups, -1).indices, 1.0)
    open_TE = keep.repeat_interleave(size, dim=1).bool()
    return scores_TE.where(open_TE, -torch.inf).argsort(dim=1, descending=True)[:, :k]


def bias_subtracted(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE - bias_E
    strength = s.reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    group_of_E = torch.arange(E) // size
    best = strength.topk(top_groups).indices
    open_TE = (group_of_E[None, :, None] == best[:, None, :]).any(-1)
    return s.where(open_TE, -torch.inf).topk(k).indices


def bias_for_the_groups_only(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    strength = (scores_TE + bias_E).reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    best = strength.topk(top_groups).indices
    open_TE = ((torch.arange(E) // size)[None, :, None] == best[:, None, :]).any(-1)
    return scores_TE.where(open_TE, -torch.inf).topk(k).indices


def scores_returned(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    strength = s.reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    best = strength.topk(top_groups).indices
    open_TE = ((torch.arange(E) // size)[None, :, None] == best[:, None, :]).any(-1)
    return s.where(open_TE, -torch.inf).topk(k)[0]


def places_within_the_chosen_groups(scores_TE, bias_E, num_groups, top_groups, k):
    size = scores_TE.shape[1] // num_groups
    rows = []
    for row in scores_TE + bias_E:
        groups = row.view(num_groups, size)
        best = groups.topk(min(2, size)).values.sum(-1).topk(top_groups).indices
        rows.append(groups[best].flatten().topk(k).indices)
    return torch.stack(rows)


def groups_ignored(scores_TE, bias_E, num_groups, top_groups, k):
    order = torch.argsort(-(scores_TE + bias_E), dim=1)
    return order[:, :k]


def groups_in_strides(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    strength = s.reshape(T, size, num_groups).topk(min(2, size), dim=1).values.sum(1)
    best = strength.topk(top_groups).indices
    open_TE = ((torch.arange(E) % num_groups)[None, :, None] == best[:, None, :]).any(-1)
    return s.where(open_TE, -torch.inf).topk(k).indices


def worst_groups(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    strength = s.reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    worst = strength.argsort(dim=1)[:, :top_groups]
    open_TE = ((torch.arange(E) // size)[None, :, None] == worst[:, None, :]).any(-1)
    return s.where(open_TE, -torch.inf).topk(k).indices


def first_groups_for_every_token(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    strength = s.reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    best = strength.topk(top_groups).indices[0].tolist()
    closed = [e for e in range(E) if e // size not in best]
    s[:, closed] = -torch.inf
    return s.topk(k).indices


def best_expert_of_the_group(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    strength = s.reshape(T, num_groups, size).amax(-1)
    best = strength.topk(top_groups).indices
    open_TE = ((torch.arange(E) // size)[None, :, None] == best[:, None, :]).any(-1)
    return s.where(open_TE, -torch.inf).topk(k).indices


def sum_of_the_whole_group(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    best = s.reshape(T, num_groups, size).mean(-1).topk(top_groups).indices
    open_TE = ((torch.arange(E) // size)[None, :, None] == best[:, None, :]).any(-1)
    return s.where(open_TE, -torch.inf).topk(k).indices


def groups_by_unbiased_scores(scores_TE, bias_E, num_groups, top_groups, k):
    size = scores_TE.shape[1] // num_groups
    chosen = []
    for raw in scores_TE:
        best = raw.view(num_groups, size).topk(min(2, size)).values.sum(-1).topk(top_groups).indices.tolist()
        biased = [(float(raw[e] + bias_E[e]), e) for g in best for e in range(g * size, (g + 1) * size)]
        chosen.append([e for _, e in sorted(biased, reverse=True)[:k]])
    return torch.tensor(chosen)


def masked_with_zero(scores_TE, bias_E, num_groups, top_groups, k):
    T, E = scores_TE.shape
    size = E // num_groups
    s = scores_TE + bias_E
    strength = s.reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    mask = torch.zeros_like(strength)
    for t in range(T):
        mask[t, strength[t].topk(top_groups).indices] = 1
    return (s * mask.repeat_interleave(size, 1)).topk(k).indices


def bias_added_in_place(scores_TE, bias_E, num_groups, top_groups, k):
    scores_TE += bias_E
    T, E = scores_TE.shape
    size = E // num_groups
    strength = scores_TE.reshape(T, num_groups, size).topk(min(2, size)).values.sum(-1)
    best = strength.topk(top_groups).indices
    open_TE = ((torch.arange(E) // size)[None, :, None] == best[:, None, :]).any(-1)
    return scores_TE.where(open_TE, -torch.inf).topk(k).indices
