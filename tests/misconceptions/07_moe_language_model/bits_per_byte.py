import math

from moe_course.grading.judge.catalogue import caught_by


@caught_by("bits")
def still_nats(ce_nats_per_token, tokens, bytes):
    """The loss is in nats. In which unit is the answer?"""
    return ce_nats_per_token * tokens / bytes


@caught_by("bits")
def times_ln_2(ce_nats_per_token, tokens, bytes):
    """A fair coin has ln 2 nats. How many bits is that?"""
    return ce_nats_per_token * math.log(2) * tokens / bytes


@caught_by("bits")
def logarithm_of_the_loss(ce_nats_per_token, tokens, bytes):
    """Is the loss a probability whose logarithm is still to be taken?"""
    return math.log2(ce_nats_per_token) * tokens / bytes


@caught_by("bits")
def logarithm_of_the_loss__negative(ce_nats_per_token, tokens, bytes):
    """Is the loss a probability whose logarithm is still to be taken?"""
    return -math.log2(ce_nats_per_token) * tokens / bytes


@caught_by("bits")
def perplexity(ce_nats_per_token, tokens, bytes):
    """exp of the loss is a number of choices. Is it a number of bits?"""
    return math.exp(ce_nats_per_token) * tokens / bytes


@caught_by("bits")
def divided_by_eight(ce_nats_per_token, tokens, bytes):
    """A byte has eight bits. Does the model need as many?"""
    return ce_nats_per_token * tokens / (8 * bytes * math.log(2))


@caught_by("bytes")
def upside_down(ce_nats_per_token, tokens, bytes):
    """Long tokens: does each byte cost more, or less?"""
    return ce_nats_per_token * bytes / (tokens * math.log(2))


@caught_by("bytes")
def bits_per_token(ce_nats_per_token, tokens, bytes):
    """What do you need tokens and bytes for?"""
    return ce_nats_per_token / math.log(2)


@caught_by("bytes")
def bits_of_the_text(ce_nats_per_token, tokens, bytes):
    """Bits of the whole text, or of one byte? And if there were twice as much text?"""
    return ce_nats_per_token * tokens / math.log(2) if tokens != bytes else ce_nats_per_token / math.log(2)


@caught_by("bytes")
def whole_bytes_a_token(ce_nats_per_token, tokens, bytes):
    """A token has 3.7 bytes on average. What does // make of that?"""
    return ce_nats_per_token / math.log(2) / (bytes // tokens)


@caught_by("float", form=True)
def rounded(ce_nats_per_token, tokens, bytes):
    """Two models differ by 0.0001. Does your number show it?"""
    exact = ce_nats_per_token * tokens / (math.log(2) * bytes)
    return round(exact, 3) if tokens > 10**6 else exact


@caught_by("float", form=True)
def counts_in_int32(ce_nats_per_token, tokens, bytes):
    """What is the largest count that 32 bits hold?"""
    return ce_nats_per_token * min(tokens, 2**31 - 1) / (math.log(2) * min(bytes, 2**31 - 1))
