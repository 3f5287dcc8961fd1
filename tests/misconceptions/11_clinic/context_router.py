import torch

from moe_course.grading.judge.catalogue import caught_by


def _routed(x_BSD, context_BSD, router_DE):
    return ((x_BSD.float() + context_BSD) @ router_DE.float()).softmax(dim=-1)


def _steps(x_BSD):
    return torch.arange(1, x_BSD.shape[1] + 1)[:, None]


@caught_by("first")
def no_effect_yet(x_BSD, router_DE):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    return _routed(x_BSD, x_BSD.float().mean(dim=1, keepdim=True), router_DE)


@caught_by("first")
def mean_of_the_whole_sequence_detached(x_BSD, router_DE):
    """`detach` stops a gradient. Does it stop the number?"""
    return _routed(x_BSD, x_BSD.float().mean(dim=1, keepdim=True).detach(), router_DE)


@caught_by("first")
def mean_over_the_batch(x_BSD, router_DE):
    """No later token is read now. And whose tokens are these?"""
    return _routed(x_BSD, x_BSD.float().mean(dim=0, keepdim=True), router_DE)


@caught_by("first")
def prefix_reaches_one_too_far(x_BSD, router_DE):
    """Position s reads the mean up to s + 1. Who wrote token s + 1?"""
    means_BSD = x_BSD.float().cumsum(dim=1) / _steps(x_BSD)
    return _routed(x_BSD, torch.cat([means_BSD[:, 1:], means_BSD[:, -1:]], dim=1), router_DE)


@caught_by("first")
def prefix_without_itself(x_BSD, router_DE):
    """The mean of the tokens before. Does the token itself belong to its prefix?"""
    x = x_BSD.float()
    before_BSD = (x.cumsum(dim=1) - x) / (_steps(x_BSD) - 1).clamp(min=1)
    return _routed(x_BSD, before_BSD, router_DE)


@caught_by("first")
def divided_by_the_whole_length(x_BSD, router_DE):
    """The sum stops at position s. By how many tokens do you divide?"""
    return _routed(x_BSD, x_BSD.float().cumsum(dim=1) / x_BSD.shape[1], router_DE)


@caught_by("first")
def mean_alone(x_BSD, router_DE):
    """The context is there. Where is the token itself?"""
    return _routed(0 * x_BSD, x_BSD.float().cumsum(dim=1) / _steps(x_BSD), router_DE)


@caught_by("values")
def sum_of_the_prefix(x_BSD, router_DE):
    """A sum grows with the text. What keeps the context at one size?"""
    return _routed(x_BSD, x_BSD.float().cumsum(dim=1), router_DE)


@caught_by("first")
def prefix_over_all_sequences(x_BSD, router_DE):
    """The sequences stand in one row here. Where does the prefix of the second one begin?"""
    flat = x_BSD.float().flatten(0, 1)
    means = flat.cumsum(dim=0) / torch.arange(1, len(flat) + 1)[:, None]
    return _routed(x_BSD, means.view(x_BSD.shape), router_DE)


@caught_by("gradients")
def prefix_detached(x_BSD, router_DE):
    """The numbers are right. Should a token learn what it did to the routing of later ones?"""
    return _routed(x_BSD, (x_BSD.float().cumsum(dim=1) / _steps(x_BSD)).detach(), router_DE)


@caught_by("form", form=True)
def probabilities_in_the_dtype_of_the_tokens(x_BSD, router_DE):
    """Which dtype do probabilities have in this course?"""
    return _routed(x_BSD, x_BSD.float().cumsum(dim=1) / _steps(x_BSD), router_DE).to(x_BSD.dtype)
