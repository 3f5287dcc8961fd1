import torch

from moe_course.grading.judge.catalogue import caught_by


def _direction(counts_E):
    counts_E = counts_E.double()
    return torch.sign(counts_E.mean() - counts_E)


def _moved(bias_E, step_E):
    return (bias_E + step_E).detach().to(bias_E.dtype)


@caught_by("steps")
def wrong_direction(bias_E, counts_E, rate):
    """An expert with too much to do: should it be selected more often?"""
    return _moved(bias_E, -rate * _direction(counts_E))


@caught_by("steps")
def step_as_large_as_the_error(bias_E, counts_E, rate):
    """Should an expert that is 100 tokens short move a hundred times as far as one that is 1 short?"""
    counts_E = counts_E.double()
    return _moved(bias_E, rate * (counts_E.mean() - counts_E))


@caught_by("steps")
def step_as_large_as_the_relative_error(bias_E, counts_E, rate):
    """Does the size of the step depend on how far an expert is off?"""
    counts_E = counts_E.double()
    return _moved(bias_E, rate * (1 - counts_E / counts_E.mean()))


@caught_by("steps")
def compared_with_zero(bias_E, counts_E, rate):
    """With what is a count compared before its sign is taken?"""
    return _moved(bias_E, -rate * torch.sign(counts_E.double()))


@caught_by("steps")
def compared_with_the_median(bias_E, counts_E, rate):
    """The mean and the middle one: which of them is the fair share?"""
    counts_E = counts_E.double()
    return _moved(bias_E, rate * torch.sign(counts_E.quantile(0.5) - counts_E))


@caught_by("steps")
def rate_ignored(bias_E, counts_E, rate):
    """How large is a step?"""
    return _moved(bias_E, _direction(counts_E))


@caught_by("steps")
def the_step_alone(bias_E, counts_E, rate):
    """Is this the new bias, or what is added to the old one?"""
    return _moved(0 * bias_E, rate * _direction(counts_E))


@caught_by("steps")
def only_those_below(bias_E, counts_E, rate):
    """Experts short of work are helped. What about those with too much?"""
    return _moved(bias_E, rate * _direction(counts_E).clamp(min=0))


@caught_by("steps")
def only_those_above(bias_E, counts_E, rate):
    """Experts with too much work are held back. What about those with too little?"""
    return _moved(bias_E, rate * _direction(counts_E).clamp(max=0))


@caught_by("steps")
def only_the_extremes(bias_E, counts_E, rate):
    """The busiest and the idlest move. And all the others off the mean?"""
    extremes_E = (counts_E == counts_E.max()) | (counts_E == counts_E.min())
    return _moved(bias_E, rate * _direction(counts_E) * extremes_E)


@caught_by("steps")
def bias_shrunk(bias_E, counts_E, rate):
    """Is there a decay in the rule?"""
    return _moved((1 - rate) * bias_E, rate * _direction(counts_E))


@caught_by("steps")
def centred_afterwards(bias_E, counts_E, rate):
    """A bias for all experts alike changes no selection. But does the rule subtract it?"""
    moved_E = _moved(bias_E, rate * _direction(counts_E))
    return moved_E - moved_E.mean()


@caught_by("at_the_mean")
def raised_at_the_mean(bias_E, counts_E, rate):
    """An expert with exactly its share: why should it move?"""
    counts_E = counts_E.double()
    return _moved(bias_E, torch.where(counts_E <= counts_E.mean(), rate, -rate))


@caught_by("at_the_mean")
def lowered_at_the_mean(bias_E, counts_E, rate):
    """Neither above nor below the mean: which way does your comparison send it?"""
    counts_E = counts_E.double()
    return _moved(bias_E, torch.where(counts_E < counts_E.mean(), rate, -rate))


@caught_by("fractional_mean")
def whole_number_mean(bias_E, counts_E, rate):
    """What does // do to a mean of 2.5?"""
    counts_E = counts_E.long()
    return _moved(bias_E, rate * torch.sign(counts_E.sum() // len(counts_E) - counts_E))


@caught_by("fractional_mean")
def mean_rounded(bias_E, counts_E, rate):
    """A mean of 2.25 and a count of 2: is that expert at its share?"""
    counts_E = counts_E.double()
    return _moved(bias_E, rate * torch.sign(counts_E.mean().round() - counts_E))


@caught_by("fractional_mean")
def almost_even_is_even(bias_E, counts_E, rate):
    """You let small errors pass. Does the rule?"""
    counts_E = counts_E.double()
    error_E = counts_E.mean() - counts_E
    return _moved(bias_E, rate * torch.where(error_E.abs() < 1, 0.0, torch.sign(error_E)))


@caught_by("new_tensor", form=True)
def moved_in_place(bias_E, counts_E, rate):
    """Who else holds the tensor that you write into?"""
    with torch.no_grad():
        return bias_E.add_((rate * _direction(counts_E)).to(bias_E.dtype))


@caught_by("new_tensor", form=True)
def the_same_tensor_when_even(bias_E, counts_E, rate):
    """When nothing has to move, whose tensor do you return?"""
    if not _direction(counts_E).any():
        return bias_E
    return _moved(bias_E, rate * _direction(counts_E))


@caught_by("new_tensor", form=True)
def gradient_kept(bias_E, counts_E, rate):
    """Through a thousand updates, how long does the graph become?"""
    return (bias_E + rate * _direction(counts_E)).to(bias_E.dtype)


@caught_by("other_inputs", form=True)
def always_float32(bias_E, counts_E, rate):
    """Which dtype should come back when the bias is float64?"""
    return (bias_E + rate * _direction(counts_E)).detach().float()


@caught_by("steps")
def kept_between_minus_one_and_one(bias_E, counts_E, rate):
    """Who says how large a bias may become? What happens to a bias of 30 in your update?"""
    return (bias_E + rate * _direction(counts_E)).clamp(-1, 1).to(bias_E.dtype).detach()


@caught_by("other_inputs", form=True)
def always_float64(bias_E, counts_E, rate):
    """Which dtype do the counts have when you convert them with double(), and which one the sum with them?"""
    return (bias_E.double() + rate * _direction(counts_E)).detach()
