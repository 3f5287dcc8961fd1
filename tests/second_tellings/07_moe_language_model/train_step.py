import torch
import torch.nn.functional as F


def _ce(logits, target):
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def _mean(losses):
    return sum(losses) / len(losses) if losses else 0.0


def _finish(model, optimizer, loss, clip):
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


def predicts_its_own_input(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    x = tokens_BS1[:, :-1]
    logits, aux = model(x)
    ce = _ce(logits, x)
    _finish(model, optimizer, ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses), clip)
    return float(ce)


def reports_the_sum(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    loss = _ce(logits, tokens_BS1[:, 1:])
    loss = loss + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses)
    _finish(model, optimizer, loss, clip)
    return loss.item()


def routers_losses_forgotten(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, _ = model(tokens_BS1[:, :-1])
    ce = -logits.log_softmax(-1).gather(2, tokens_BS1[:, 1:, None]).mean()
    _finish(model, optimizer, ce, clip)
    return ce.item()


def not_clipped(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits, tokens_BS1[:, 1:])
    loss = ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return ce.item()


def gradients_pile_up(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits, tokens_BS1[:, 1:])
    (ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return ce.item()


def summed_over_layers(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits, tokens_BS1[:, 1:])
    loss = ce
    for lb, z in zip(aux.lb_losses, aux.z_losses, strict=True):
        loss = loss + lb_weight * lb + z_weight * z
    _finish(model, optimizer, loss, clip)
    return ce.item()


def clipped_by_value(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits, tokens_BS1[:, 1:])
    loss = ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses)
    optimizer.zero_grad()
    loss.backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad.clamp_(-clip, clip)
    optimizer.step()
    return ce.item()


def weights_exchanged(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits, tokens_BS1[:, 1:])
    loss = ce + z_weight * _mean(aux.lb_losses) + lb_weight * _mean(aux.z_losses)
    _finish(model, optimizer, loss, clip)
    return ce.item()


def no_step(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = _ce(logits, tokens_BS1[:, 1:])
    optimizer.zero_grad()
    (ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    return ce.item()


def last_position_only(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = F.cross_entropy(logits[:, -1], tokens_BS1[:, -1])
    _finish(model, optimizer, ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses), clip)
    return ce.item()


def summed_over_tokens(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    logits, aux = model(tokens_BS1[:, :-1])
    ce = -logits.log_softmax(-1).gather(2, tokens_BS1[:, 1:, None]).sum()
    _finish(model, optimizer, ce + lb_weight * _mean(aux.lb_losses) + z_weight * _mean(aux.z_losses), clip)
    return ce.item()
