import torch
import torch.distributed as dist


def _norm(grads):
    return torch.stack([torch.zeros(()), *(g.float().norm() for g in grads)]).norm()


def _clip(grads, max_norm, norm):
    for g in grads:
        g.mul_(min(1.0, max_norm / norm))
    return norm


def no_effect_yet(shared_grads, expert_grads, max_norm, group):
    every = [*shared_grads, *expert_grads]
    return _clip(every, max_norm, _norm(every).item())


def mean_of_the_norms(shared_grads, expert_grads, max_norm, group):
    every = [*shared_grads, *expert_grads]
    total = _norm(every)
    dist.all_reduce(total, group=group)
    return _clip(every, max_norm, total.item() / dist.get_world_size(group))


def shared_counted_on_every_rank(shared_grads, expert_grads, max_norm, group):
    every = [*shared_grads, *expert_grads]
    total = _norm(every) ** 2
    dist.all_reduce(total, group=group)
    return _clip(every, max_norm, total.item() ** 0.5)


def experts_left_out_of_the_norm(shared_grads, expert_grads, max_norm, group):
    return _clip([*shared_grads, *expert_grads], max_norm, _norm(shared_grads).item())
