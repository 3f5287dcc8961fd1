import numpy as np
import torch


def all_rounds_at_once(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    expert_N = torch.multinomial(probs_E, rounds * tokens, replacement=True, generator=generator)
    rank_MT = (expert_N // (len(probs_E) // num_ranks)).view(rounds, tokens)
    loads_MR = torch.nn.functional.one_hot(rank_MT, num_ranks).sum(dim=1)
    times = (loads_MR.max(dim=1).values * seconds_per_token).double().numpy()
    return [float(x) for x in np.percentile(times, percentiles)]


def ranks_drawn_directly(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    probs_R = probs_E.double().reshape(num_ranks, -1).sum(dim=-1)
    edges_R = (probs_R / probs_R.sum()).cumsum(dim=0)
    times = []
    for _ in range(rounds):
        draws_T = torch.rand(tokens, generator=generator, dtype=torch.float64)
        ranks = torch.searchsorted(edges_R, draws_T, right=True).clamp(max=num_ranks - 1).tolist()
        times.append(max(ranks.count(r) for r in range(num_ranks)) * seconds_per_token)
    times.sort()
    answers = []
    for p in percentiles:
        place = p / 100 * (rounds - 1)
        low = int(place)
        high = min(low + 1, rounds - 1)
        answers.append(times[low] + (times[high] - times[low]) * (place - low))
    return answers
