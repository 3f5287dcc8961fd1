import numpy as np
import torch


def _rounds(probs_E, tokens, rounds, generator):
    draws = torch.multinomial(probs_E, tokens * rounds, replacement=True, generator=generator)
    return draws.reshape(rounds, tokens)


def _loads(rank_MT, num_ranks):
    return torch.nn.functional.one_hot(rank_MT, num_ranks).sum(1).double().numpy()


def mean_of_the_ranks(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    ranks = _rounds(probs_E, tokens, rounds, generator) // (len(probs_E) // num_ranks)
    times = _loads(ranks, num_ranks).mean(1) * seconds_per_token
    return np.percentile(times, list(percentiles)).tolist()


def largest_expert_in_place_of_rank(
    probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator
):
    loads = _loads(_rounds(probs_E, tokens, rounds, generator), len(probs_E))
    if num_ranks == 1:
        loads = loads.sum(1, keepdims=True)
    return np.percentile(loads.max(1) * seconds_per_token, list(percentiles)).tolist()


def experts_dealt_like_cards(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    ranks = torch.remainder(_rounds(probs_E, tokens, rounds, generator), num_ranks)
    return np.percentile(_loads(ranks, num_ranks).max(1) * seconds_per_token, list(percentiles)).tolist()


def expected_load(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    share = max(float(block.sum() / probs_E.sum()) for block in probs_E.chunk(num_ranks))
    return [share * tokens * seconds_per_token for _ in percentiles]


def seconds_forgotten(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    ranks = _rounds(probs_E, tokens, rounds, generator) // (len(probs_E) // num_ranks)
    return np.percentile(_loads(ranks, num_ranks).max(1), list(percentiles)).tolist()


def percentiles_sorted(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    ranks = _rounds(probs_E, tokens, rounds, generator) // (len(probs_E) // num_ranks)
    times = _loads(ranks, num_ranks).max(1) * seconds_per_token
    return np.sort(np.percentile(times, list(percentiles))).tolist()


def upside_down(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    ranks = _rounds(probs_E, tokens, rounds, generator) // (len(probs_E) // num_ranks)
    times = _loads(ranks, num_ranks).max(1) * seconds_per_token
    return (-np.percentile(-times, list(percentiles))).tolist()


def share_of_the_tokens(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    ranks = _rounds(probs_E, tokens, rounds, generator) // (len(probs_E) // num_ranks)
    shares = _loads(ranks, num_ranks).max(1) / tokens
    return np.percentile(shares * seconds_per_token, list(percentiles)).tolist()
