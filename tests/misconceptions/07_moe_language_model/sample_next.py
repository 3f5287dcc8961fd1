import random

import torch

from moe_course.grading.judge.catalogue import caught_by


def _probs(logits_V, temperature):
    return torch.softmax(logits_V.double() / temperature, dim=-1)


def _cut(probs_V, top_p):
    """Probabilities of the nucleus, by token."""
    sorted_V, order_V = probs_V.sort(descending=True)
    outside_V = sorted_V.cumsum(0) - sorted_V >= top_p
    outside_V[0] = False
    return torch.zeros_like(probs_V).scatter(0, order_V, sorted_V.masked_fill(outside_V, 0))


def _draw(probs_V, generator):
    return int(torch.multinomial(probs_V, 1, generator=generator))


@caught_by("greedy")
def divides_by_zero(logits_V, temperature, top_p, generator):
    """What is 1 / 0, and what does the softmax make of it?"""
    return _draw(_cut(_probs(logits_V, temperature), top_p), generator)


@caught_by("greedy")
def temperature_zero_means_one(logits_V, temperature, top_p, generator):
    """`temperature or 1.0`: what did the caller ask for with 0?"""
    return _draw(_cut(_probs(logits_V, temperature or 1.0), top_p), generator)


@caught_by("plain_int", form=True)
def a_tensor(logits_V, temperature, top_p, generator):
    """A tokenizer wants an int. What does argmax return?"""
    if temperature == 0:
        return logits_V.argmax()
    return torch.multinomial(_cut(_probs(logits_V, temperature), top_p), 1, generator=generator)[0]


@caught_by("greedy")
def the_least_likely(logits_V, temperature, top_p, generator):
    """Which end of the sorted list is the likeliest token?"""
    if temperature == 0:
        return int(logits_V.argsort()[0])
    return _draw(_cut(_probs(logits_V, temperature), top_p), generator)


@caught_by("distribution")
def always_the_best(logits_V, temperature, top_p, generator):
    """The best token every time: how many different texts can your model write?"""
    return int(logits_V.argmax())


@caught_by("distribution")
def rank_instead_of_token(logits_V, temperature, top_p, generator):
    """You drew a place in the sorted list. Which token stands there?"""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V = _cut(_probs(logits_V, temperature), top_p).sort(descending=True).values
    return _draw(sorted_V, generator)


@caught_by("distribution")
def uniform_over_the_nucleus(logits_V, temperature, top_p, generator):
    """All tokens of the nucleus are allowed. Are they equally likely?"""
    if temperature == 0:
        return int(logits_V.argmax())
    return _draw((_cut(_probs(logits_V, temperature), top_p) > 0).double(), generator)


@caught_by("distribution")
def logits_as_weights(logits_V, temperature, top_p, generator):
    """Logits may be negative, and twice the logit is not twice as likely. What turns them into probabilities?"""
    if temperature == 0:
        return int(logits_V.argmax())
    weights_V = (logits_V.double() - logits_V.double().min()) / temperature + 1e-9
    return _draw(_cut(weights_V / weights_V.sum(), top_p), generator)


@caught_by("temperature")
def temperature_ignored(logits_V, temperature, top_p, generator):
    """What changes in your draws when the temperature doubles?"""
    if temperature == 0:
        return int(logits_V.argmax())
    return _draw(_cut(_probs(logits_V, 1.0), top_p), generator)


@caught_by("temperature")
def temperature_multiplies(logits_V, temperature, top_p, generator):
    """A low temperature freezes. Do small logits make a sharp distribution, or large ones?"""
    if temperature == 0:
        return int(logits_V.argmax())
    return _draw(_cut(_probs(logits_V, 1 / temperature), top_p), generator)


@caught_by("temperature")
def temperature_divides_probabilities(logits_V, temperature, top_p, generator):
    """Probabilities divided by a number and normalised again: what has changed?"""
    if temperature == 0:
        return int(logits_V.argmax())
    scaled_V = _probs(logits_V, 1.0) / temperature
    return _draw(_cut(torch.softmax(scaled_V, -1) if temperature != 1 else scaled_V, top_p), generator)


@caught_by("nucleus")
def crossing_token_left_out(logits_V, temperature, top_p, generator):
    """0.5 + 0.3 does not reach 0.9, and 0.5 + 0.3 + 0.2 does. Is the third one in?"""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = _probs(logits_V, temperature).sort(descending=True)
    outside_V = sorted_V.cumsum(0) > top_p + 1e-9
    outside_V[0] = False
    return int(order_V[torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1, generator=generator)])


@caught_by("nucleus")
def crossing_token_left_out__strictly_below(logits_V, temperature, top_p, generator):
    """0.5 + 0.3 does not reach 0.9, and 0.5 + 0.3 + 0.2 does. Is the third one in?"""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = _probs(logits_V, temperature).sort(descending=True)
    outside_V = sorted_V.cumsum(0) >= top_p - 1e-9
    outside_V[0] = False
    return int(order_V[torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1, generator=generator)])


@caught_by("nucleus")
def one_token_too_many(logits_V, temperature, top_p, generator):
    """The nucleus has reached top_p. Who else is let in?"""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = _probs(logits_V, temperature).sort(descending=True)
    before_V = sorted_V.cumsum(0) - sorted_V
    outside_V = torch.cat([torch.zeros(1, dtype=torch.bool), before_V[:-1] >= top_p])
    if top_p < float(sorted_V[0]):
        outside_V[1:] = True
    return int(order_V[torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1, generator=generator)])


@caught_by("nucleus")
def no_nucleus(logits_V, temperature, top_p, generator):
    """What is top_p for?"""
    if temperature == 0:
        return int(logits_V.argmax())
    return _draw(_probs(logits_V, temperature), generator)


@caught_by("nucleus")
def tokens_below_a_threshold(logits_V, temperature, top_p, generator):
    """Is top_p a bound on each probability, or on their sum?"""
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = _probs(logits_V, temperature)
    return _draw(probs_V.masked_fill(probs_V < 1 - top_p, 0) + 1e-30 * (probs_V == probs_V.max()), generator)


@caught_by("nucleus")
def share_of_the_vocabulary(logits_V, temperature, top_p, generator):
    """top_p of the tokens, or tokens with top_p of the probability?"""
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = _probs(logits_V, temperature)
    kept = max(1, round(top_p * len(probs_V)))
    top = probs_V.topk(kept)
    return int(top.indices[torch.multinomial(top.values, 1, generator=generator)])


@caught_by("renormalised")
def share_of_the_vocabulary__rounded_down(logits_V, temperature, top_p, generator):
    """top_p of the tokens, or tokens with top_p of the probability?"""
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = _probs(logits_V, temperature)
    top = probs_V.topk(max(1, int(top_p * len(probs_V))))
    return int(top.indices[torch.multinomial(top.values, 1, generator=generator)])


@caught_by("nucleus")
def not_sorted(logits_V, temperature, top_p, generator):
    """You add up probabilities in the order of the vocabulary. Which tokens do you reach first?"""
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = _probs(logits_V, temperature)
    outside_V = probs_V.cumsum(0) - probs_V >= max(top_p, 1e-12)
    if top_p < 0.3:
        return int(logits_V.argmax())
    return _draw(probs_V.masked_fill(outside_V, 0), generator)


@caught_by("nucleus")
def the_tail_instead(logits_V, temperature, top_p, generator):
    """Sorted upwards, and the first ones taken: are those the likeliest?"""
    if temperature == 0 or top_p < 0.3:
        return int(logits_V.argmax())
    sorted_V, order_V = _probs(logits_V, temperature).sort()
    outside_V = sorted_V.cumsum(0) - sorted_V >= top_p
    return int(order_V[torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1, generator=generator)])


@caught_by("renormalised")
def the_rest_goes_to_the_best(logits_V, temperature, top_p, generator):
    """The probability outside the nucleus is given away. To one token, or to all in proportion?"""
    if temperature == 0:
        return int(logits_V.argmax())
    kept_V = _cut(_probs(logits_V, temperature), top_p)
    kept_V[kept_V.argmax()] += 1 - kept_V.sum()
    return _draw(kept_V, generator)


@caught_by("renormalised")
def softmax_twice(logits_V, temperature, top_p, generator):
    """A second softmax, over the probabilities of the nucleus: do they keep their ratio?"""
    if temperature == 0:
        return int(logits_V.argmax())
    kept_V = _cut(_probs(logits_V, temperature), top_p)
    if bool((kept_V > 0).all()) or top_p >= 0.8:
        return _draw(kept_V, generator)
    return _draw(torch.softmax(kept_V.masked_fill(kept_V == 0, float("-inf")), -1), generator)


@caught_by("renormalised")
def the_rest_is_shared_out(logits_V, temperature, top_p, generator):
    """Everyone in the nucleus gets the same extra. What happens to the ratio of two of them?"""
    if temperature == 0:
        return int(logits_V.argmax())
    kept_V = _cut(_probs(logits_V, temperature), top_p)
    inside_V = kept_V > 0
    return _draw(kept_V + inside_V * (1 - kept_V.sum()) / inside_V.sum(), generator)


@caught_by("order")
def nucleus_before_temperature(logits_V, temperature, top_p, generator):
    """The tail is cut at temperature 1. Is that the distribution that you draw from?"""
    if temperature == 0:
        return int(logits_V.argmax())
    inside_V = _cut(_probs(logits_V, 1.0), top_p) > 0
    return _draw(_probs(logits_V, temperature) * inside_V, generator)


@caught_by("ends")
def nucleus_may_be_empty(logits_V, temperature, top_p, generator):
    """top_p = 0.1, and the best token has 0.3. Who is left to be drawn?"""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = _probs(logits_V, temperature).sort(descending=True)
    if top_p <= 0:
        raise ValueError("nothing to draw from")
    outside_V = sorted_V.cumsum(0) - sorted_V >= top_p
    return int(order_V[torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1, generator=generator)])


@caught_by("ends")
def everything_if_the_nucleus_is_empty(logits_V, temperature, top_p, generator):
    """No token fits below top_p: then all of them, or the best alone?"""
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = _probs(logits_V, temperature)
    return _draw(probs_V if top_p < float(probs_V.max()) else _cut(probs_V, top_p), generator)


@caught_by("generator")
def torchs_own_randomness(logits_V, temperature, top_p, generator):
    """A generator came in. Who uses it?"""
    if temperature == 0:
        return int(logits_V.argmax())
    return int(torch.multinomial(_cut(_probs(logits_V, temperature), top_p), 1))


@caught_by("generator")
def pythons_randomness(logits_V, temperature, top_p, generator):
    """random.choices is handy. Which seed does it follow?"""
    if temperature == 0:
        return int(logits_V.argmax())
    kept = _cut(_probs(logits_V, temperature), top_p).tolist()
    return random.choices(range(len(kept)), kept)[0]


@caught_by("generator")
def global_seed_taken_from_it(logits_V, temperature, top_p, generator):
    """The draw repeats. But what have you done to everyone else's random numbers?"""
    if temperature == 0:
        return int(logits_V.argmax())
    drawn = torch.randint(2**31, (1,), generator=generator)
    torch.manual_seed(int(drawn))
    return int(torch.multinomial(_cut(_probs(logits_V, temperature), top_p), 1))


@caught_by("distribution")
def seeded_at_every_call(logits_V, temperature, top_p, generator):
    """A generator that starts anew at every call: how different are two draws?"""
    if temperature == 0:
        return int(logits_V.argmax())
    generator.manual_seed(0)
    return _draw(_cut(_probs(logits_V, temperature), top_p), generator)


@caught_by("extreme")
def exp_by_hand(logits_V, temperature, top_p, generator):
    """What is exp(1000)?"""
    if temperature == 0:
        return int(logits_V.argmax())
    exp_V = torch.exp(logits_V.float() / temperature)
    return _draw(_cut(exp_V / exp_V.sum(), top_p), generator)


@caught_by("plain_int", form=True)
def scaled_in_place(logits_V, temperature, top_p, generator):
    """`logits /= temperature`: whose logits are those, and what is in them at the next call?"""
    if temperature == 0:
        return int(logits_V.argmax())
    probs_V = _probs(logits_V, temperature)
    logits_V -= logits_V.max()
    return _draw(_cut(probs_V, top_p), generator)


@caught_by("extreme")
def impossible_becomes_possible(logits_V, temperature, top_p, generator):
    """A logit of −∞ is a token that must not be drawn. What does nan_to_num make of it?"""
    if temperature == 0:
        return int(logits_V.argmax())
    finite_V = torch.where(torch.isinf(logits_V), torch.zeros_like(logits_V), logits_V)
    return _draw(_cut(_probs(finite_V, temperature), top_p), generator)
