import torch

from moe_course.grading.judge.catalogue import caught_by


def _loads(probs_E, num_ranks, tokens, rounds, generator, rank=None, draw=None):
    """loads_MR: tokens of each rank in each round; the options are the mistakes."""
    size = len(probs_E) // num_ranks
    rows = []
    for _ in range(rounds):
        expert_T = torch.multinomial(probs_E, tokens, replacement=True, generator=generator)
        rank_T = expert_T // size if rank is None else rank(expert_T)
        rows.append(torch.bincount(rank_T, minlength=num_ranks))
    return torch.stack(rows).double()


def _quantiles(times_M, percentiles, interpolation="linear"):
    wanted = torch.tensor([p / 100 for p in percentiles], dtype=torch.float64)
    return times_M.double().quantile(wanted, interpolation=interpolation).tolist()


@caught_by("law")
def mean_of_the_ranks(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """The mean over the ranks is the same in every round. Does the layer wait for it, or for the busiest rank?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    return _quantiles(loads_MR.mean(dim=1) * seconds_per_token, percentiles)


@caught_by("law")
def one_rank_only(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """You look at the same rank in every round. Is it always the one with the most tokens?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    return _quantiles(loads_MR[:, -1] * seconds_per_token, percentiles)


@caught_by("law")
def largest_expert_in_place_of_rank(
    probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator
):
    """A rank computes all of its experts, one after the other. Whose tokens do you add up?"""
    rows = []
    for _ in range(rounds):
        expert_T = torch.multinomial(probs_E, tokens, replacement=True, generator=generator)
        rows.append(torch.bincount(expert_T, minlength=len(probs_E)).max())
    times_M = torch.stack(rows) if num_ranks > 1 else torch.full((rounds,), tokens)
    return _quantiles(times_M * seconds_per_token, percentiles)


@caught_by("blocks")
def experts_dealt_like_cards(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """Expert 1 goes to rank 1 in your code. Where do its neighbours 0 and 2 go, and where should they?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator, rank=lambda e_T: e_T % num_ranks)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)


@caught_by("law")
def expected_load(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """tokens × probability is the mean load of a rank. Does the rank get exactly this load in every round?"""
    share_R = (probs_E / probs_E.sum()).view(num_ranks, -1).sum(dim=1)
    return [float(share_R.max() * tokens * seconds_per_token)] * len(percentiles)


@caught_by("law")
def one_round_for_all(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """You draw once and use it in every round. Can such a list have a tail?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, 1, generator).expand(rounds, -1)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)


@caught_by("law")
def uniform_experts(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """Are all experts equally likely, or as likely as probs_E says?"""
    even_E = torch.where(probs_E > 0, 1.0, 0.0)
    loads_MR = _loads(even_E, num_ranks, tokens, rounds, generator)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)


@caught_by("one_rank")
def seconds_forgotten(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """You return numbers of tokens. How long does a token take?"""
    return _quantiles(_loads(probs_E, num_ranks, tokens, rounds, generator).amax(dim=1), percentiles)


@caught_by("one_rank")
def share_of_the_tokens(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """You divide the loads by the number of tokens. Is the time of a rank a share, or does each token cost time?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator) / tokens
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)


@caught_by("percentiles")
def nearest_round(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """Which value lies between two rounds: one of the two, or what a straight line between them has there?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles, interpolation="lower")


@caught_by("percentiles")
def percentiles_sorted(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """In which order did the caller ask for the percentiles, and in which do you answer?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, sorted(percentiles))


@caught_by("percentiles")
def upside_down(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """The 99th percentile is the time that 99 of 100 rounds do not exceed. Is yours a slow round or a fast one?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, [100 - p for p in percentiles])


@caught_by("generator", form=True)
def randomness_from_elsewhere(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """Who draws: the generator that you were given, or torch's global one, which other code uses too?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, None)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)


@caught_by("generator", form=True)
def same_draws_in_every_call(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """A second call with the same generator gives the same rounds. Did you seed one of your own?"""
    own = torch.Generator().manual_seed(generator.initial_seed())
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, own)
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)


@caught_by("form", form=True)
def tensor_returned(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """Which type should the result have, and each of its numbers?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    return torch.tensor(_quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles))


@caught_by("form", form=True)
def probabilities_edited(probs_E, num_ranks, tokens, seconds_per_token, percentiles, rounds, generator):
    """The caller's probabilities have changed. Do you make your own copy before you scale them?"""
    loads_MR = _loads(probs_E, num_ranks, tokens, rounds, generator)
    probs_E *= 100
    return _quantiles(loads_MR.amax(dim=1) * seconds_per_token, percentiles)
