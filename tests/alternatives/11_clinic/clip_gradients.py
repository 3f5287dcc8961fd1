import torch
import torch.distributed as dist


def squares_added(shared_grads, expert_grads, max_norm, group):
    experts = torch.tensor([sum(float((g.double() ** 2).sum()) for g in expert_grads)], dtype=torch.float64)
    dist.all_reduce(experts, group=group)
    norm = (float(experts) + sum(float((g.double() ** 2).sum()) for g in shared_grads)) ** 0.5
    factor = min(1.0, max_norm / norm)
    for grad in [*shared_grads, *expert_grads]:
        grad *= factor
    return norm


def shares_of_the_shared(shared_grads, expert_grads, max_norm, group):
    ranks = dist.get_world_size(group)
    total = torch.zeros(1, dtype=torch.float64)
    for grad in shared_grads:
        total += grad.double().norm() ** 2 / ranks
    for grad in expert_grads:
        total += grad.double().norm() ** 2
    dist.all_reduce(total, group=group)
    norm = total.sqrt().item()
    if norm > max_norm:
        for grad in (*shared_grads, *expert_grads):
            grad.mul_(max_norm / norm)
    return norm


def norms_gathered(shared_grads, expert_grads, max_norm, group):
    mine = torch.linalg.vector_norm(torch.cat([torch.zeros(1), *(g.float().flatten() for g in expert_grads)]))
    norms = [torch.zeros(()) for _ in range(dist.get_world_size(group))]
    dist.all_gather(norms, mine, group=group)
    shared = torch.linalg.vector_norm(
        torch.cat([torch.zeros(1), *(g.float().flatten() for g in shared_grads)])
    )
    norm = torch.stack([shared, *norms]).norm().item()
    for grad in (*shared_grads, *expert_grads):
        grad.copy_(grad * min(1.0, max_norm / norm))
    return norm
