import math


def base_two(ce_nats_per_token, tokens, bytes):
    return ce_nats_per_token * math.log2(math.e) * (tokens / bytes)


def by_the_whole_text(ce_nats_per_token, tokens, bytes):
    nats = ce_nats_per_token * tokens
    bits = nats / math.log(2)
    return float(bits / bytes)
