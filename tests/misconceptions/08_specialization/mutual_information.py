import torch

from moe_course.grading.judge.catalogue import caught_by


def _shares(counts_GE):
    p_GE = counts_GE.double() / counts_GE.sum()
    return p_GE, p_GE.sum(dim=1, keepdim=True) * p_GE.sum(dim=0)


def _bits(p_GE, q_GE):
    seen = (p_GE > 0) & (q_GE > 0)
    return (p_GE[seen] * (p_GE[seen] / q_GE[seen]).log2()).sum().item()


def _entropy(p):
    p = p[p > 0]
    return -(p * p.log2()).sum().item()


@caught_by("values")
def in_nats(counts_GE):
    """To which base is a logarithm that answers in bits?"""
    p_GE, q_GE = _shares(counts_GE)
    seen = p_GE > 0
    return (p_GE[seen] * (p_GE[seen] / q_GE[seen]).log()).sum().item()


@caught_by("values")
def upside_down(counts_GE):
    """Is it p over p_g · p_e in the logarithm, or the other way round: can information be negative?"""
    return -_bits(*_shares(counts_GE))


@caught_by("values")
def weighted_by_the_product(counts_GE):
    """Which of the two tables is the mean over: what happens, or what would if they were independent?"""
    p_GE, q_GE = _shares(counts_GE)
    return _bits(q_GE, p_GE)


@caught_by("values")
def share_of_the_label_entropy(counts_GE):
    """You divide by the entropy of the labels. Is the result still in bits?"""
    p_GE, q_GE = _shares(counts_GE)
    return _bits(p_GE, q_GE) / max(_entropy(p_GE.sum(dim=1)), 1e-12)


@caught_by("values")
def mean_over_the_labels(counts_GE):
    """A small label and a large one: does each token count alike, or each label?"""
    rows_GE = counts_GE.double() / counts_GE.sum(dim=1, keepdim=True).clamp(min=1)
    rows_GE = rows_GE[counts_GE.sum(dim=1) > 0]
    return _bits(*_shares(rows_GE))


@caught_by("other_inputs", form=True)
def a_tensor(counts_GE):
    """The result is a Python float. What does a tensor with one value need to become one?"""
    return torch.tensor(_bits(*_shares(counts_GE)))


@caught_by("independent")
def against_a_uniform_table(counts_GE):
    """An expert that everybody likes is no news of the label. What is p to be compared with?"""
    p_GE, _ = _shares(counts_GE)
    return _bits(p_GE, torch.full_like(p_GE, 1 / p_GE.numel()))


@caught_by("independent")
def against_even_labels(counts_GE):
    """Are the labels equally frequent in your counts?"""
    p_GE, _ = _shares(counts_GE)
    return _bits(p_GE, p_GE.sum(dim=0).expand_as(p_GE) / len(p_GE))


@caught_by("independent")
def against_even_experts(counts_GE):
    """Is the load even in your counts?"""
    p_GE, _ = _shares(counts_GE)
    return _bits(p_GE, p_GE.sum(dim=1, keepdim=True).expand_as(p_GE) / p_GE.shape[1])


@caught_by("independent")
def entropy_of_the_table(counts_GE):
    """How uncertain are label and expert together? And is that what one tells about the other?"""
    return _entropy(_shares(counts_GE)[0])


@caught_by("independent")
def entropy_of_the_expert_given_the_label(counts_GE):
    """This is how uncertain the expert still is when the label is known. How uncertain was it before?"""
    p_GE, _ = _shares(counts_GE)
    return _entropy(p_GE) - _entropy(p_GE.sum(dim=1))


@caught_by("zeros")
def nan_where_nothing_is(counts_GE):
    """What does a computer make of 0 · log 0?"""
    p_GE, q_GE = _shares(counts_GE)
    return (p_GE * (p_GE / q_GE).log2()).sum().item()


@caught_by("zeros")
def a_little_added_to_every_cell(counts_GE):
    """You add 1 to every count to keep the logarithm away from 0. Are these still the same shares?"""
    empty = bool((counts_GE == 0).any())
    return _bits(*_shares(counts_GE + 1 if empty else counts_GE))


@caught_by("zeros")
def nan_for_empty_rows(counts_GE):
    """What are the shares of a label that has no tokens, if you divide by its sum?"""
    p_GE, _ = _shares(counts_GE)
    p_G = p_GE.sum(dim=1)
    given_GE = p_GE / p_G[:, None]
    entropy_G = -torch.xlogy(given_GE, given_GE).sum(dim=1)
    p_E = p_GE.sum(dim=0)
    return ((-torch.xlogy(p_E, p_E).sum() - (p_G * entropy_G).sum()) / torch.tensor(2.0).log()).item()


@caught_by("scale")
def counts_for_shares(counts_GE):
    """In p · log2(p / …), is the first p a count?"""
    return _bits(*_shares(counts_GE)) * float(counts_GE.sum())


@caught_by("scale")
def bias_subtracted(counts_GE):
    """You take off what chance would give. The contract asks for the bits as they are: who looks after chance?"""
    labels, experts = counts_GE.shape
    return _bits(*_shares(counts_GE)) - (labels - 1) * (experts - 1) / (2 * 0.6931 * float(counts_GE.sum()))


@caught_by("other_inputs", form=True)
def divided_in_place(counts_GE):
    """Whose counts are shares now?"""
    if counts_GE.is_floating_point():
        counts_GE /= counts_GE.sum()
    return _bits(*_shares(counts_GE))


@caught_by("other_inputs", form=True)
def only_whole_numbers(counts_GE):
    """A table of counts may be a float tensor. What does your code do with it?"""
    return _bits(*_shares(torch.bincount(counts_GE.flatten()).new_tensor(counts_GE.tolist())))
