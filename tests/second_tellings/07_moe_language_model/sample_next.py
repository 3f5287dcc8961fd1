import random

import torch


def _nucleus(probs, top_p):
    """The likeliest tokens that reach top_p together, the likeliest first."""
    chosen, reached = [], 0.0
    for token in probs.argsort(descending=True).tolist():
        chosen.append(token)
        reached += float(probs[token])
        if reached >= top_p:
            break
    return chosen


def _probs(logits_V, temperature):
    return torch.softmax(logits_V.double() / temperature, 0)


def _draw(probs, nucleus, generator):
    return nucleus[int(torch.multinomial(probs[nucleus], 1, generator=generator))]


def divides_by_zero(logits_V, temperature, top_p, generator):
    probs = _probs(logits_V, temperature)
    return _draw(probs, _nucleus(probs, top_p), generator)


def temperature_zero_means_one(logits_V, temperature, top_p, generator):
    probs = _probs(logits_V, 1.0 if temperature == 0 else temperature)
    return _draw(probs, _nucleus(probs, top_p), generator)


def always_the_best(logits_V, temperature, top_p, generator):
    return logits_V.argmax().item()


def rank_instead_of_token(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    nucleus = _nucleus(probs, top_p)
    return int(torch.multinomial(probs[nucleus], 1, generator=generator))


def uniform_over_the_nucleus(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    nucleus = _nucleus(_probs(logits_V, temperature), top_p)
    return nucleus[int(torch.randint(len(nucleus), (1,), generator=generator))]


def temperature_ignored(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, 1)
    return _draw(probs, _nucleus(probs, top_p), generator)


def temperature_multiplies(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, 1 / temperature)
    return _draw(probs, _nucleus(probs, top_p), generator)


def crossing_token_left_out(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    nucleus = _nucleus(probs, top_p)
    return _draw(probs, nucleus[:-1] or nucleus, generator)


def no_nucleus(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    return int(torch.multinomial(_probs(logits_V, temperature), 1, generator=generator))


def tokens_below_a_threshold(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    nucleus = [v for v, p in enumerate(probs.tolist()) if p >= 1 - top_p] or [int(probs.argmax())]
    return _draw(probs, nucleus, generator)


def share_of_the_vocabulary(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    keep = max(1, int(top_p * len(probs)))
    return _draw(probs, probs.topk(keep).indices.tolist(), generator)


def not_sorted(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    nucleus, reached = [], 0.0
    for token, p in enumerate(probs.tolist()):
        nucleus.append(token)
        reached += p
        if reached >= top_p:
            break
    return _draw(probs, nucleus, generator)


def nucleus_before_temperature(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    nucleus = _nucleus(_probs(logits_V, 1), top_p)
    return _draw(_probs(logits_V, temperature), nucleus, generator)


def torchs_own_randomness(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    return _draw(probs, _nucleus(probs, top_p), None)


def pythons_randomness(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    nucleus = _nucleus(probs, top_p)
    return random.choices(nucleus, weights=probs[nucleus].tolist())[0]


def exp_by_hand(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    weights = (logits_V / temperature).exp()
    probs = weights / weights.sum()
    return _draw(probs, _nucleus(probs, top_p), generator)


def a_tensor(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return torch.argmax(logits_V)
    probs = _probs(logits_V, temperature)
    return torch.tensor(_draw(probs, _nucleus(probs, top_p), generator))


def seeded_at_every_call(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(logits_V.argmax())
    probs = _probs(logits_V, temperature)
    return _draw(probs, _nucleus(probs, top_p), generator.manual_seed(1234))
