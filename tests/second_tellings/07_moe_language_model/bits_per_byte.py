import math


def times_ln_2(ce_nats_per_token, tokens, bytes):
    return ce_nats_per_token * tokens * math.log(2) / bytes


def still_nats(ce_nats_per_token, tokens, bytes):
    return tokens / bytes * ce_nats_per_token


def upside_down(ce_nats_per_token, tokens, bytes):
    bits = ce_nats_per_token * math.log2(math.e)
    return bits * bytes / tokens


def bits_per_token(ce_nats_per_token, tokens, bytes):
    return ce_nats_per_token * math.log2(math.e)


def logarithm_of_the_loss(ce_nats_per_token, tokens, bytes):
    return -math.log(ce_nats_per_token, 2) * tokens / bytes
