import torch
import torch.distributed as dist


def sum_then_divide(shared_grads, expert_grads, expert_group, group):
    for grads, members in ((shared_grads, group), (expert_grads, expert_group)):
        for grad in grads:
            buffer = grad.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(buffer, op=dist.ReduceOp.SUM, group=members)
            grad.copy_(buffer).div_(dist.get_world_size(group))


def mean_of_replicas_then_by_parallelism(shared_grads, expert_grads, expert_group, group):
    ranks, replicas = dist.get_world_size(group), dist.get_world_size(expert_group)
    for grad in shared_grads:
        grad.copy_(_summed(grad, group) / ranks)
    for grad in expert_grads:
        grad.copy_(_summed(grad, expert_group) / replicas * replicas / ranks)


def gathered(shared_grads, expert_grads, expert_group, group):
    ranks = dist.get_world_size(group)
    for grads, members in ((shared_grads, group), (expert_grads, expert_group)):
        for grad in grads:
            parts = [
                torch.empty_like(grad, memory_format=torch.contiguous_format)
                for _ in range(dist.get_world_size(members))
            ]
            dist.all_gather(parts, grad.contiguous(), group=members)
            grad.copy_(torch.stack(parts).sum(0) / ranks)


def _summed(grad, group):
    total = grad.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total
