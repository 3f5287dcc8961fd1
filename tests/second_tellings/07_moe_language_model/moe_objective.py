import torch


def _avg(losses):
    return sum(losses) / len(losses) if len(losses) else 0.0


def weights_exchanged(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    return ce + z_weight * _avg(lb_losses_L) + lb_weight * _avg(z_losses_L)


def z_loss_forgotten(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    if len(lb_losses_L) == 0:
        return ce
    return ce + lb_weight * _avg(lb_losses_L)


def summed_over_layers(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    total = ce
    for lb in lb_losses_L:
        total = total + lb_weight * lb
    for z in z_losses_L:
        total = total + z_weight * z
    return total


def last_layer_only(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    for w, losses in ((lb_weight, lb_losses_L), (z_weight, z_losses_L)):
        if len(losses):
            extra = losses[len(losses) - 1]
            ce = ce + w * extra
    return ce


def mean_of_nothing(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    def mean(x):
        return torch.as_tensor([float(v) for v in x]).mean() if len(x) == 0 else _avg(x)

    return ce + lb_weight * mean(lb_losses_L) + z_weight * mean(z_losses_L)


def added_in_place(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    ce += lb_weight * _avg(lb_losses_L)
    ce += z_weight * _avg(z_losses_L)
    return ce


def python_numbers(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    lb, z = [float(v) for v in lb_losses_L], [float(v) for v in z_losses_L]
    return ce + lb_weight * _avg(lb) + z_weight * _avg(z)
