import torch
import torch.distributed as dist

from moe_course.grading.judge.catalogue import caught_by


def _square(gradients):
    return sum((g.double().square().sum() for g in gradients), torch.zeros((), dtype=torch.float64))


def _over_ranks(value, group, op=dist.ReduceOp.SUM):
    value = value.clone()
    dist.all_reduce(value, op=op, group=group)
    return value


def _scale(shared_grads, expert_grads, max_norm, norm):
    norm = float(norm)
    for gradient in (*shared_grads, *expert_grads):
        if norm > max_norm:
            gradient.mul_(max_norm / norm)
    return norm


@caught_by("norm")
def no_effect_yet(shared_grads, expert_grads, max_norm, group):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    norm = (_square(shared_grads) + _square(expert_grads)).sqrt()
    return _scale(shared_grads, expert_grads, max_norm, norm)


@caught_by("norm")
def mean_of_the_norms(shared_grads, expert_grads, max_norm, group):
    """3 and 4 are the sides of a right angle. Is the length of the whole 3.5?"""
    norm = _over_ranks((_square(shared_grads) + _square(expert_grads)).sqrt(), group)
    return _scale(shared_grads, expert_grads, max_norm, norm / dist.get_world_size(group))


@caught_by("norm")
def sum_of_the_norms(shared_grads, expert_grads, max_norm, group):
    """Do lengths add up, or their squares?"""
    norm = _square(shared_grads).sqrt() + _over_ranks(_square(expert_grads).sqrt(), group)
    return _scale(shared_grads, expert_grads, max_norm, norm)


@caught_by("norm")
def shared_counted_on_every_rank(shared_grads, expert_grads, max_norm, group):
    """A shared weight is one weight of the model, though every rank has a copy. How often is it in your sum?"""
    norm = _over_ranks(_square(shared_grads) + _square(expert_grads), group).sqrt()
    return _scale(shared_grads, expert_grads, max_norm, norm)


@caught_by("norm")
def largest_norm_of_a_rank(shared_grads, expert_grads, max_norm, group):
    """All ranks agree now. But is the longest part as long as the whole?"""
    norm = _over_ranks((_square(shared_grads) + _square(expert_grads)).sqrt(), group, dist.ReduceOp.MAX)
    return _scale(shared_grads, expert_grads, max_norm, norm)


@caught_by("norm")
def experts_left_out_of_the_norm(shared_grads, expert_grads, max_norm, group):
    """Most of a mixture's weights are in its experts. Are they in the norm?"""
    return _scale(shared_grads, expert_grads, max_norm, _square(shared_grads).sqrt())


@caught_by("norm")
def square_returned(shared_grads, expert_grads, max_norm, group):
    """The squares are added. Which step is missing before it is a length?"""
    square = _square(shared_grads) + _over_ranks(_square(expert_grads), group)
    return _scale(shared_grads, expert_grads, max_norm, square)


@caught_by("small")
def always_scaled_to_the_maximum(shared_grads, expert_grads, max_norm, group):
    """A gradient that is short already: should it be made longer?"""
    norm = float((_square(shared_grads) + _over_ranks(_square(expert_grads), group)).sqrt())
    for gradient in (*shared_grads, *expert_grads):
        gradient.mul_(max_norm / norm)
    return norm


@caught_by("scaled")
def only_the_experts_scaled(shared_grads, expert_grads, max_norm, group):
    """The norm is of all gradients. Which of them are scaled?"""
    norm = (_square(shared_grads) + _over_ranks(_square(expert_grads), group)).sqrt()
    return _scale([], expert_grads, max_norm, norm)


@caught_by("layouts")
def ranks_without_experts_stay_away(shared_grads, expert_grads, max_norm, group):
    """A rank without experts has nothing to add. What do the others wait for?"""
    square = _square(expert_grads)
    if expert_grads:
        square = _over_ranks(square, group)
    return _scale(shared_grads, expert_grads, max_norm, (_square(shared_grads) + square).sqrt())


@caught_by("layouts")
def norm_over_all_processes(shared_grads, expert_grads, max_norm, group):
    """Without a group, `all_reduce` waits for every process. Do all of them call?"""
    norm = (_square(shared_grads) + _over_ranks(_square(expert_grads), None)).sqrt()
    return _scale(shared_grads, expert_grads, max_norm, norm)


@caught_by("form", form=True)
def norm_returned_as_a_tensor(shared_grads, expert_grads, max_norm, group):
    """Which type is asked for?"""
    norm = (_square(shared_grads) + _over_ranks(_square(expert_grads), group)).sqrt()
    _scale(shared_grads, expert_grads, max_norm, norm)
    return norm
