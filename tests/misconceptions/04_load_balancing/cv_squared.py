import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("values")
def not_squared(values_E):
    """Which power of the standard deviation is in the variance, and which power of the mean belongs below it?"""
    return values_E.float().std(correction=0) / values_E.mean()


@caught_by("values")
def variance_over_the_mean(values_E):
    """The variance has the unit of the values squared. And your denominator?"""
    return values_E.float().var(correction=0) / values_E.float().mean()


@caught_by("scale")
def variance_alone(values_E):
    """Ten times the tokens, a hundred times the variance: has the balance become worse?"""
    return values_E.float().var(correction=0)


@caught_by("values")
def upside_down(values_E):
    """What does this give for an even load, where nothing deviates?"""
    values_E = values_E.float()
    return values_E.mean() ** 2 / values_E.var(correction=0)


@caught_by("even")
def sample_variance(values_E):
    """Are these E numbers a sample of something, or all there are? What comes out for E = 1?"""
    return values_E.float().var() / values_E.float().mean() ** 2


@caught_by("values")
def mean_of_squares_over_mean_squared(values_E):
    """What does this give for an even load?"""
    return (values_E**2).mean() / values_E.mean() ** 2


@caught_by("values")
def sum_of_squares(values_E):
    """The sum of the squared distances, or their mean?"""
    return ((values_E - values_E.mean()) ** 2).sum() / values_E.mean() ** 2


@caught_by("values")
def mean_distance(values_E):
    """Absolute distances, or squared ones?"""
    return (values_E - values_E.mean()).abs().mean() / values_E.mean()


@caught_by("scale")
def divided_by_the_sum(values_E):
    """Mean squared, or sum squared?"""
    return values_E.float().var(correction=0) / values_E.float().sum() ** 2


@caught_by("scale")
def a_generous_epsilon(values_E):
    """When the values are small, which is larger: their mean squared, or what you add to it?"""
    return values_E.float().var(correction=0) / (values_E.float().mean() ** 2 + 0.1)


@caught_by("gradients")
def a_python_number(values_E):
    """Can a loss that is a Python float send a gradient back?"""
    values_E = values_E.detach().float()
    return float(values_E.var(correction=0) / values_E.mean() ** 2)


@caught_by("gradients")
def no_gradient(values_E):
    """Shazeer adds this to the loss. What does the router learn from a constant?"""
    values_E = values_E.detach().float()
    return values_E.var(correction=0) / values_E.mean() ** 2


@caught_by("gradients")
def mean_held_constant(values_E):
    """When one value rises, does the mean stay where it was?"""
    values_E = values_E.float()
    mean = values_E.mean().detach()
    return ((values_E - mean) ** 2).mean() / mean**2


@caught_by("other_inputs", form=True)
def bfloat16_throughout(values_E):
    """Which dtype does the variance of bfloat16 values have?"""
    if values_E.dtype == torch.bfloat16:
        return ((values_E - values_E.mean()) ** 2).mean() / values_E.mean() ** 2
    return values_E.var(correction=0) / values_E.mean() ** 2


@caught_by("other_inputs", form=True)
def centred_in_place(values_E):
    """Whose tensor do you subtract from?"""
    mean = values_E.float().mean()
    if values_E.requires_grad:
        return ((values_E.float() - mean) ** 2).mean() / mean**2
    values_E -= mean
    return (values_E.float() ** 2).mean() / mean**2
