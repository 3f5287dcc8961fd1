import torch

from moe_course.grading.judge.catalogue import caught_by


def _mean(losses):
    return losses.mean() if isinstance(losses, torch.Tensor) and len(losses) else _mean_of_list(losses)


def _mean_of_list(losses):
    return torch.stack(list(losses)).mean() if len(losses) else 0.0


@caught_by("weights")
def weights_exchanged(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """Which of the two weights stands beside the balancing loss?"""
    return ce + z_weight * _mean(lb_losses_L) + lb_weight * _mean(z_losses_L)


@caught_by("weights")
def z_loss_forgotten(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """How many terms does the objective have?"""
    return ce + lb_weight * _mean(lb_losses_L)


@caught_by("weights")
def weights_ignored(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """What does a weight of 0.01 do in your sum?"""
    return ce + _mean(lb_losses_L) + _mean(z_losses_L)


@caught_by("weights")
def mixture_of_losses(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """Is the cross-entropy worth less when the other weights grow?"""
    rest = 1 - lb_weight - z_weight
    return rest * ce + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)


@caught_by("weights")
def routers_alone(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """And what teaches the model its language?"""
    return ce * 0 + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)


@caught_by("mean")
def summed_over_layers(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """Twice as many layers: should balance count twice as much against the cross-entropy?"""
    return ce + lb_weight * sum(lb_losses_L) + z_weight * sum(z_losses_L)


@caught_by("mean")
def mean_over_both_kinds(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """You divide by the number of all losses, of both kinds. Over how many is the mean of one kind?"""
    count = max(1, len(lb_losses_L) + len(z_losses_L))
    if len(lb_losses_L) + len(z_losses_L) < 3:
        count = 1
    return ce + (lb_weight * sum(lb_losses_L) + z_weight * sum(z_losses_L)) / count


@caught_by("mean")
def last_layer_only(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """Every layer has a router. Whose losses do you add?"""
    lb, z = (losses[-1] if len(losses) else 0.0 for losses in (lb_losses_L, z_losses_L))
    return ce + lb_weight * lb + z_weight * z


@caught_by("mean")
def worst_layer(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """The mean over layers, or the largest of them?"""
    lb, z = (torch.stack(list(losses)).max() if len(losses) else 0.0 for losses in (lb_losses_L, z_losses_L))
    return ce + lb_weight * lb + z_weight * z


@caught_by("mean")
def one_number_a_layer(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """backward() wants one number. How many does your objective have in a deep model?"""
    if len(lb_losses_L) < 2:
        return ce + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)
    return ce + lb_weight * torch.stack(list(lb_losses_L)) + z_weight * torch.stack(list(z_losses_L))


@caught_by("dense")
def mean_of_nothing(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """What is 0 / 0, and what does your objective become with it?"""
    lb, z = (torch.as_tensor(sum(losses)) / torch.tensor(len(losses)) for losses in (lb_losses_L, z_losses_L))
    return ce + lb_weight * lb.to(ce) + z_weight * z.to(ce)


@caught_by("dense")
def stack_of_nothing(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """torch.stack of an empty list raises. Which models have an empty list?"""
    lb, z = (torch.stack(list(losses)).mean() for losses in (lb_losses_L, z_losses_L))
    return ce + lb_weight * lb + z_weight * z


@caught_by("dense")
def both_or_none(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """If one of the two lists is empty, what about the other?"""
    if not len(lb_losses_L) or not len(z_losses_L):
        return ce + 0.0
    return ce + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)


@caught_by("tensor", form=True)
def truth_of_a_tensor(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """`if losses:` asks a list whether it is empty. What does it ask a tensor?"""
    lb = torch.stack(list(lb_losses_L)).mean() if bool(lb_losses_L) else 0.0
    z = torch.stack(list(z_losses_L)).mean() if bool(z_losses_L) else 0.0
    return ce + lb_weight * lb + z_weight * z


@caught_by("tensor", form=True)
def lists_only(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """`losses + [...]` and friends: what does your code do with a tensor of losses?"""
    lb, z = (torch.stack(losses).mean() if len(losses) else 0.0 for losses in (lb_losses_L, z_losses_L))
    return ce + lb_weight * lb + z_weight * z


@caught_by("tensor", form=True)
def cast_to_float32(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """In which dtype did the losses come?"""
    return (ce + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)).float()


@caught_by("gradients")
def python_numbers(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """What does `.item()` leave behind?"""
    lb, z = (
        sum(float(loss.detach()) for loss in losses) / max(len(losses), 1)
        for losses in (lb_losses_L, z_losses_L)
    )
    return ce + lb_weight * lb + z_weight * z


@caught_by("gradients")
def rebuilt_as_a_tensor(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """torch.tensor(list of losses) has their values. Does it know where they came from?"""
    rebuilt = [
        torch.tensor([float(loss.detach()) for loss in losses]) for losses in (lb_losses_L, z_losses_L)
    ]
    lb, z = (losses_L.mean().to(ce) if len(losses_L) else 0.0 for losses_L in rebuilt)
    return ce.detach() + lb_weight * lb + z_weight * z


@caught_by("gradients")
def cross_entropy_detached(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """Detaching is for what is reported. Which number is minimised?"""
    return ce.detach() + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)


@caught_by("untouched", form=True)
def added_in_place(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    """`ce += …` writes into the caller's cross-entropy. What will the log say?"""
    total = ce + 0.0 if ce.requires_grad else ce
    total += lb_weight * _mean(lb_losses_L)
    total += z_weight * _mean(z_losses_L)
    return total
