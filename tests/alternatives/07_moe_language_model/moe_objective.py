import torch


def step_by_step(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    total = ce
    for weight, losses in ((lb_weight, lb_losses_L), (z_weight, z_losses_L)):
        for loss in losses:
            total = total + weight / len(losses) * loss
    return total.clone()


def stacked(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    def mean(losses):
        stacked_L = torch.stack(tuple(losses)) if len(losses) else torch.zeros(1, dtype=ce.dtype)
        return torch.mean(stacked_L)

    return ce + lb_weight * mean(lb_losses_L) + z_weight * mean(z_losses_L)


def with_python_sum(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    lb = sum(lb_losses_L) / max(len(lb_losses_L), 1)
    z = sum(z_losses_L) / max(len(z_losses_L), 1)
    return torch.add(ce, lb * lb_weight + z * z_weight)
