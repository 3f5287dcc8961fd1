import torch.distributed as dist


def _all(grads, group, factor):
    for grad in grads:
        buffer = grad.contiguous()
        dist.all_reduce(buffer, group=group)
        grad.copy_(buffer)
        grad.mul_(factor)


def no_effect_yet(shared_grads, expert_grads, expert_group, group):
    for grads, members in ((shared_grads, group), (expert_grads, expert_group)):
        _all(grads, members, 1 / dist.get_world_size(members))


def experts_summed_only(shared_grads, expert_grads, expert_group, group):
    _all(shared_grads, group, 1 / dist.get_world_size(group))
    _all(expert_grads, expert_group, 1.0)


def experts_not_reduced(shared_grads, expert_grads, expert_group, group):
    n = dist.get_world_size(group)
    _all(shared_grads, group, 1 / n)
    for grad in expert_grads:
        grad /= n


def shared_summed_only(shared_grads, expert_grads, expert_group, group):
    _all(shared_grads, group, 1.0)
    _all(expert_grads, expert_group, 1 / dist.get_world_size(group))
