import torch


def masks_with_where(scores_TE, bias_E, num_groups, top_groups, k):
    biased_TE = scores_TE + bias_E
    tokens, experts = biased_TE.shape
    size = experts // num_groups
    groups = biased_TE.reshape(tokens, num_groups, size)
    value_TG = groups.topk(min(2, size), dim=2).values.sum(dim=2)
    open_TG = torch.zeros_like(value_TG).scatter_(1, value_TG.topk(top_groups, sorted=False).indices, 1)
    open_TE = open_TG[:, :, None].expand(-1, -1, size).reshape(tokens, experts)
    masked_TE = torch.where(open_TE.bool(), biased_TE, torch.tensor(float("-inf"), dtype=biased_TE.dtype))
    return torch.topk(masked_TE, k, dim=-1, sorted=False)[1]


def token_by_token(scores_TE, bias_E, num_groups, top_groups, k):
    size = scores_TE.shape[1] // num_groups
    chosen = []
    for biased in (scores_TE + bias_E).tolist():
        groups = [range(g * size, (g + 1) * size) for g in range(num_groups)]
        groups.sort(key=lambda group: sum(sorted((biased[e] for e in group), reverse=True)[:2]))
        allowed = sorted(e for group in groups[-top_groups:] for e in group)
        chosen.append(sorted(allowed, key=lambda e: biased[e])[-k:])
    return torch.tensor(chosen, dtype=torch.int32)


def gathers_the_chosen_groups(scores_TE, bias_E, num_groups, top_groups, k):
    experts = torch.arange(scores_TE.shape[1]).reshape(num_groups, -1)
    groups = (scores_TE + bias_E)[:, experts]  # (T, groups, experts of a group)
    ordered = groups.sort(dim=2, descending=True).values
    best = ordered[:, :, :2].sum(dim=2).argsort(dim=1, descending=True)[:, :top_groups]
    numbers = experts[best].flatten(1)
    open_scores = groups.gather(1, best[:, :, None].expand(-1, -1, experts.shape[1])).flatten(1)
    return numbers.gather(1, open_scores.argsort(dim=1, descending=True)[:, :k])
