import math

import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("values")
def softmax_over_tokens(x_TD, w_DE):
    """Do experts compete for a token, or tokens for an expert? Which axis belongs to the competitors?"""
    return (x_TD.float() @ w_DE.float()).softmax(dim=0)


@caught_by("values")
def logits_returned(x_TD, w_DE):
    """These are scores of any size and sign. What turns them into probabilities?"""
    return x_TD.float() @ w_DE.float()


@caught_by("values")
def log_probabilities(x_TD, w_DE):
    """Can a probability be negative?"""
    return (x_TD.float() @ w_DE.float()).log_softmax(dim=-1)


@caught_by("values")
def sigmoid_instead_of_softmax(x_TD, w_DE):
    """Each expert is scored by itself here. Do the numbers of a token add up to 1?"""
    return (x_TD.float() @ w_DE.float()).sigmoid()


@caught_by("values")
def divided_by_the_sum_without_exp(x_TD, w_DE):
    """Logits can be negative, and their sum 0. What does a softmax do to them before it divides?"""
    logits_TE = x_TD.float() @ w_DE.float()
    return logits_TE / logits_TE.sum(dim=-1, keepdim=True)


@caught_by("values")
def scaled_like_attention(x_TD, w_DE):
    """Attention divides its scores by √d. Does a router?"""
    return (x_TD.float() @ w_DE.float() / math.sqrt(x_TD.shape[-1])).softmax(dim=-1)


@caught_by("float32_result", form=True)
def result_in_the_dtype_of_the_tokens(x_TD, w_DE):
    """Why round to bfloat16 again what you went to float32 for?"""
    return (x_TD.float() @ w_DE.float()).softmax(dim=-1).to(x_TD.dtype)


@caught_by("float32_result", form=True)
def bfloat16_throughout(x_TD, w_DE):
    """How many digits does a bfloat16 probability have?"""
    return (x_TD @ w_DE).softmax(dim=-1)


@caught_by("float32_logits", form=True)
def float32_from_the_softmax_on(x_TD, w_DE):
    """Converting the logits comes too late for what the product has lost. Where must float32 begin?"""
    return (x_TD @ w_DE).softmax(dim=-1, dtype=torch.float32)


@caught_by("float32_logits", form=True)
def float32_after_the_softmax(x_TD, w_DE):
    """Does a conversion bring back the digits that bfloat16 rounded away?"""
    return (x_TD @ w_DE).softmax(dim=-1).float()


@caught_by("float32_logits", form=True)
def only_the_tokens_in_float32(x_TD, w_DE):
    """The tokens are float32 now. And the matrix that they meet?"""
    return (x_TD.float() @ w_DE).softmax(dim=-1).float()


@caught_by("gradients")
def tokens_detached(x_TD, w_DE):
    """Should the layers below learn nothing from how their tokens are routed?"""
    return (x_TD.detach().float() @ w_DE.float()).softmax(dim=-1)


@caught_by("gradients")
def no_gradient_at_all(x_TD, w_DE):
    """Choosing an expert has no gradient. But does a probability have one?"""
    with torch.no_grad():
        return (x_TD.float() @ w_DE.float()).softmax(dim=-1)


@caught_by("stable")
def exp_by_hand(x_TD, w_DE):
    """exp(89) is more than float32 can hold. What may you subtract first without changing the result?"""
    exp_TE = torch.exp(x_TD.float() @ w_DE.float())
    return exp_TE / exp_TE.sum(dim=-1, keepdim=True)


@caught_by("stable")
def one_maximum_for_all_tokens(x_TD, w_DE):
    """You subtract the largest logit of the whole matrix. What is left of a token whose logits are far below?"""
    logits_TE = x_TD.float() @ w_DE.float()
    exp_TE = torch.exp(logits_TE - logits_TE.max())
    return exp_TE / exp_TE.sum(dim=-1, keepdim=True)
