import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("one_token")
def not_squared(logits_TE):
    """A token whose logsumexp is −5: is it rewarded for that?"""
    return logits_TE.float().logsumexp(dim=-1).mean()


@caught_by("one_token")
def softmax_first(logits_TE):
    """What is the logsumexp of log-probabilities, whatever the logits were?"""
    return (logits_TE.float().log_softmax(dim=-1).logsumexp(dim=-1) ** 2).mean()


@caught_by("one_token")
def squares_of_the_logits(logits_TE):
    """Large logits are to be made smaller. But where are exp, sum and log?"""
    return (logits_TE.float() ** 2).mean()


@caught_by("one_token")
def squares_of_the_logits__summed_over_experts(logits_TE):
    """Large logits are to be made smaller. But where are exp, sum and log?"""
    return (logits_TE.float() ** 2).sum(-1).mean()


@caught_by("one_token")
def largest_logit_only(logits_TE):
    """logsumexp is close to the largest logit, and how much larger?"""
    return (logits_TE.float().amax(dim=-1) ** 2).mean()


@caught_by("one_token")
def log_of_the_mean(logits_TE):
    """What does a token with logits 0, 0 give: log 2, or log 1?"""
    return (logits_TE.float().exp().mean(dim=-1).log() ** 2).mean()


@caught_by("one_token")
def over_the_tokens(logits_TE):
    """One logsumexp for each token, or one for each expert?"""
    return (logits_TE.float().logsumexp(dim=0) ** 2).mean()


@caught_by("one_token")
def root_of_the_squares(logits_TE):
    """The mean of the squares, or the root of it?"""
    return (logits_TE.float().logsumexp(dim=-1) ** 2).mean().sqrt()


@caught_by("one_token")
def one_number_a_token(logits_TE):
    """How many axes has a loss?"""
    return logits_TE.float().logsumexp(dim=-1) ** 2


@caught_by("gradients")
def a_python_number(logits_TE):
    """Can a loss that is a Python float send a gradient back?"""
    return float((logits_TE.detach().float().logsumexp(dim=-1) ** 2).mean())


@caught_by("one_token")
def with_its_weight(logits_TE):
    """Who multiplies by 0.001: the loss, or whoever adds it to the others?"""
    return 1e-3 * (logits_TE.float().logsumexp(dim=-1) ** 2).mean()


@caught_by("mean")
def mean_before_the_square(logits_TE):
    """Two tokens with 5 and −5: does your loss see them?"""
    return logits_TE.float().logsumexp(dim=-1).mean() ** 2


@caught_by("mean")
def summed_over_tokens(logits_TE):
    """Should a batch of twice the size cost twice as much?"""
    return (logits_TE.float().logsumexp(dim=-1) ** 2).sum()


@caught_by("mean")
def mean_over_tokens_and_experts(logits_TE):
    """How many logsumexps are there: T, or T·E?"""
    z_T = logits_TE.float().logsumexp(dim=-1)
    return (z_T**2).sum() / len(z_T) ** 2


@caught_by("gradients")
def no_gradient(logits_TE):
    """What does a loss without a gradient teach?"""
    return (logits_TE.detach().float().logsumexp(dim=-1) ** 2).mean()


@caught_by("stable")
def exp_by_hand(logits_TE):
    """exp(300) is more than float32 can hold. Which function takes the largest logit out first?"""
    return (torch.log(torch.exp(logits_TE.float()).sum(dim=-1)) ** 2).mean()


@caught_by("other_inputs", form=True)
def shifted_in_place(logits_TE):
    """Whose logits do you shift?"""
    if logits_TE.requires_grad:
        return (logits_TE.float().logsumexp(dim=-1) ** 2).mean()
    top_T1 = logits_TE.amax(dim=-1, keepdim=True).clone()
    logits_TE -= top_T1
    return ((logits_TE.float().exp().sum(dim=-1).log() + top_T1[:, 0].float()) ** 2).mean()
