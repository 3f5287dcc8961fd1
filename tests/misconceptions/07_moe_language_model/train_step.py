import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _ce(logits_BSV, targets_BS):
    return F.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten())


def _mean(losses):
    return torch.stack(losses).mean() if losses else 0.0


def _total(ce, aux, lb_weight, z_weight):
    return ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses)


def _clip(model, clip):
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)


@caught_by("learns")
def no_step(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Who changes the parameters, and are the gradients still there when it does?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    return ce.item()


@caught_by("learns")
def step_before_backward(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Which gradients does the optimizer find when it steps?"""
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    optimizer.step()
    optimizer.zero_grad()
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    return ce.item()


@caught_by("learns")
def classes_in_the_last_axis(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """cross_entropy wants the classes in axis 1. Which axis of logits_BSV counts them?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = F.cross_entropy(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def logits_turned_without_their_targets(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Your logits are flattened position by position. In which order are the targets?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = F.cross_entropy(logits_BSV.transpose(0, 1).flatten(0, 1), tokens_BS1[:, 1:].flatten())
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def uphill(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A cross-entropy is −log p already. Which way does a step go if its sign is turned once more?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    (-_total(ce, aux, lb_weight, z_weight)).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def predicts_its_own_input(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """The target at position s is the token at position s. How hard is that to predict?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, :-1])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def predicts_the_previous(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """The model reads tokens[:, 1:]. Which token should it predict, the next or the last one?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, 1:])
    ce = _ce(logits_BSV, tokens_BS1[:, :-1])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def last_position_only(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A sequence of S + 1 tokens holds S lessons. How many do you use?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = F.cross_entropy(logits_BSV[:, -1], tokens_BS1[:, -1])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def summed_over_tokens(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A batch of twice the size: a step of twice the length?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:]) * tokens_BS1[:, 1:].numel()
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("learns")
def softmax_before_the_loss(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """cross_entropy takes logits. What does a softmax of a softmax look like?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV.softmax(dim=-1), tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("inputs")
def sees_the_last_token(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """All S + 1 tokens go in, and the last logits are cut off. Whose load do the routers count?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1)
    ce = _ce(logits_BSV[:, :-1], tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("inputs", form=True)
def called_twice(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """One call for the logits and one for the losses: what does that cost?"""
    optimizer.zero_grad()
    ce = _ce(model(tokens_BS1[:, :-1])[0], tokens_BS1[:, 1:])
    _total(ce, model(tokens_BS1[:, :-1])[1], lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("returns")
def reports_the_sum(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Your curve falls when the weights of the routers' losses are made smaller. Has the model become better?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    loss = _total(_ce(logits_BSV, tokens_BS1[:, 1:]), aux, lb_weight, z_weight)
    loss.backward()
    _clip(model, clip)
    optimizer.step()
    return loss.item()


@caught_by("returns")
def reports_after_the_update(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """The batch has just been learnt. Is its loss now still that of unseen text?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    _total(_ce(logits_BSV, tokens_BS1[:, 1:]), aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    with torch.no_grad():
        return _ce(model(tokens_BS1[:, :-1])[0], tokens_BS1[:, 1:]).item()


@caught_by("python_float", form=True)
def returns_a_tensor(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A list of a thousand such tensors keeps a thousand graphs. What does a log need?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce


@caught_by("returns")
def returns_nothing(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """How does the caller learn whether training goes well?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    _total(_ce(logits_BSV, tokens_BS1[:, 1:]), aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()


@caught_by("aux")
def routers_losses_forgotten(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """What keeps the experts balanced in your training: does a gradient come from aux?"""
    optimizer.zero_grad()
    logits_BSV, _ = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    ce.backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("aux")
def losses_of_the_routers_unweighted(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Two weights came in. Where does your objective use them?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, 1.0, 1.0).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("aux")
def balancing_loss_only(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """aux holds two lists. Which one did you leave out?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, 0.0).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("aux")
def last_layer_only(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Every layer has a router. Of which layer are the losses that you add?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    lb, z = (losses[-1] if losses else 0.0 for losses in (aux.lb_losses, aux.z_losses))
    (ce + lb_weight * lb + z_weight * z).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("aux")
def weights_exchanged(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """In which order does your objective take its two weights?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, z_weight, lb_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("aux")
def summed_over_layers(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Mean or sum: what does lb_weight mean in a deeper model?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    (ce + lb_weight * sum(aux.lb_losses) + z_weight * sum(aux.z_losses)).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("clip")
def not_clipped(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """One bad batch can undo a thousand good ones. What bounds your step, after backward()?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    optimizer.step()
    return ce.item()


@caught_by("clip")
def clipped_to_one(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """1.0 is a usual bound. Which bound was asked for?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, 1.0)
    optimizer.step()
    return ce.item()


@caught_by("clip")
def clipped_one_by_one(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Each parameter clipped by itself: does the step still point where the gradient points?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    for parameter in model.parameters():
        torch.nn.utils.clip_grad_norm_([parameter], clip)
    optimizer.step()
    return ce.item()


@caught_by("clip")
def clipped_by_value(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """clip_grad_value_ bounds every number. What is to be bounded here?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    torch.nn.utils.clip_grad_value_(model.parameters(), clip)
    optimizer.step()
    return ce.item()


@caught_by("clip")
def always_scaled_to_clip(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A short gradient means that little is left to learn. What do you make of it?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    for grad in grads:
        grad.mul_(min(clip, 1e3) / norm)
    optimizer.step()
    return ce.item()


@caught_by("clip")
def loss_clipped(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """Is it the loss that has a norm, or its gradient?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    loss = _total(ce, aux, lb_weight, z_weight)
    (loss * min(1.0, clip / loss.item())).backward()
    optimizer.step()
    return ce.item()


@caught_by("forgets")
def gradients_pile_up(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """backward() adds to what is in .grad. Who empties it?"""
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("optimizer")
def a_new_optimizer_each_time(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A fresh optimizer has no memory. What has Adam learnt about the gradients by now?"""
    kind = type(optimizer)
    fresh = kind(model.parameters(), lr=optimizer.param_groups[0]["lr"])
    fresh.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    fresh.step()
    return ce.item()


@caught_by("optimizer")
def plain_descent(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """p −= lr · grad is one optimizer of many. Which one were you given?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= optimizer.param_groups[0]["lr"] * parameter.grad
    return ce.item()


@caught_by("optimizer")
def steps_twice(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """How many updates does one batch get?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    _clip(model, clip)
    optimizer.step()
    if isinstance(optimizer, torch.optim.Adam):
        optimizer.step()
    return ce.item()


@caught_by("dense")
def stack_of_nothing(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """A dense model has no routers. What do you stack?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    lb, z = torch.stack(aux.lb_losses).mean(), torch.stack(aux.z_losses).mean()
    (ce + lb_weight * lb + z_weight * z).backward()
    _clip(model, clip)
    optimizer.step()
    return ce.item()


@caught_by("dense")
def every_parameter_has_a_gradient(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    """What is .grad of a parameter that the loss does not depend on?"""
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits_BSV, tokens_BS1[:, 1:])
    _total(ce, aux, lb_weight, z_weight).backward()
    norm = (
        sum(p.grad.pow(2).sum() for p in model.parameters() if len(aux.lb_losses) == 0 or p.grad is not None)
        ** 0.5
    )
    for parameter in model.parameters():
        if parameter.grad is not None and norm > clip:
            parameter.grad.mul_(clip / norm)
    optimizer.step()
    return ce.item()
