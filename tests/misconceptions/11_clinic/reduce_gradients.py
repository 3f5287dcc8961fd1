import torch.distributed as dist

from moe_course.grading.judge.catalogue import caught_by


def _total(gradient, group):
    total = gradient.detach().contiguous().clone()
    dist.all_reduce(total, group=group)
    return total


def _reduce(gradients, group, divisor):
    for gradient in gradients:
        gradient.copy_(_total(gradient, group) / divisor)


@caught_by("experts")
def no_effect_yet(shared_grads, expert_grads, expert_group, group):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    _reduce(shared_grads, group, dist.get_world_size(group))
    _reduce(expert_grads, expert_group, dist.get_world_size(expert_group))


@caught_by("experts")
def experts_summed_only(shared_grads, expert_grads, expert_group, group):
    """A sum over all tokens grows with the ranks. Which mean is asked for?"""
    _reduce(shared_grads, group, dist.get_world_size(group))
    _reduce(expert_grads, expert_group, 1)


@caught_by("experts")
def experts_reduced_over_everybody(shared_grads, expert_grads, expert_group, group):
    """Rank 0 holds experts 0 and 1, rank 1 experts 2 and 3. What is the sum of their gradients?"""
    _reduce(shared_grads, group, dist.get_world_size(group))
    _reduce(expert_grads, group, dist.get_world_size(group))


@caught_by("experts")
def experts_divided_twice(shared_grads, expert_grads, expert_group, group):
    """You divide by the ranks that hold the same experts, and again by all ranks. Which is one too many?"""
    _reduce(shared_grads, group, dist.get_world_size(group))
    size = dist.get_world_size(expert_group)
    _reduce(expert_grads, expert_group, size * dist.get_world_size(group))


@caught_by("experts")
def experts_not_reduced(shared_grads, expert_grads, expert_group, group):
    """Two ranks hold the same expert. Do they still, after the next step?"""
    _reduce(shared_grads, group, dist.get_world_size(group))
    for gradient in expert_grads:
        gradient.div_(dist.get_world_size(group))


@caught_by("shared")
def loss_scaled_for_the_experts(shared_grads, expert_grads, expert_group, group):
    """The experts are right. And what did the same factor do to the shared gradients?"""
    ranks, replicas = dist.get_world_size(group), dist.get_world_size(expert_group)
    _reduce(shared_grads, group, ranks * ranks / replicas)
    _reduce(expert_grads, expert_group, ranks)


@caught_by("shared")
def shared_summed_only(shared_grads, expert_grads, expert_group, group):
    """Each rank's loss is a mean already. What is the mean of means?"""
    _reduce(shared_grads, group, 1)
    _reduce(expert_grads, expert_group, dist.get_world_size(group))


@caught_by("layouts")
def divided_by_the_default_group(shared_grads, expert_grads, expert_group, group):
    """`get_world_size()` without an argument counts every process. Do all of them take part?"""
    ranks = dist.get_world_size()
    _reduce(shared_grads, group, ranks)
    _reduce(expert_grads, expert_group, ranks)


@caught_by("form", form=True)
def strided_gradients_lost(shared_grads, expert_grads, expert_group, group):
    """`contiguous()` of a strided tensor is a copy. Who sees what you write into it?"""
    for gradients, members in ((shared_grads, group), (expert_grads, expert_group)):
        for gradient in gradients:
            flat = gradient.contiguous()
            flat.copy_(_total(flat, members) / dist.get_world_size(group))
