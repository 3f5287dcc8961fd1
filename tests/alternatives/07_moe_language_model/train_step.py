import torch
import torch.nn.functional as F


def with_torch_utilities(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    inputs, targets = tokens_BS1[:, :-1], tokens_BS1[:, 1:]
    logits, aux = model(inputs)
    ce = F.cross_entropy(logits.transpose(1, 2), targets)
    loss = ce
    if aux.lb_losses:
        loss = loss + lb_weight * sum(aux.lb_losses) / len(aux.lb_losses)
    if aux.z_losses:
        loss = loss + z_weight * sum(aux.z_losses) / len(aux.z_losses)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(ce)


def clipping_by_hand(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    for parameter in model.parameters():
        parameter.grad = None
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    logp_BSV = logits_BSV.log_softmax(dim=-1)
    ce = -logp_BSV.gather(-1, tokens_BS1[:, 1:, None]).mean()
    means = [torch.stack(losses).mean() if losses else 0 for losses in (aux.lb_losses, aux.z_losses)]
    (ce + lb_weight * means[0] + z_weight * means[1]).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    if norm > clip:
        for grad in grads:
            grad *= clip / norm
    optimizer.step()
    return ce.detach().item()


def gradients_from_autograd(model, tokens_BS1, optimizer, lb_weight, z_weight, clip):
    parameters = list(model.parameters())
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = F.cross_entropy(logits_BSV.reshape(-1, logits_BSV.shape[-1]), tokens_BS1[:, 1:].reshape(-1))
    loss = ce + sum(lb_weight * loss for loss in aux.lb_losses) / max(1, len(aux.lb_losses))
    loss = loss + sum(z_weight * loss for loss in aux.z_losses) / max(1, len(aux.z_losses))
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    length = sum(float(grad.double().pow(2).sum()) for grad in grads if grad is not None) ** 0.5
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else grad * min(1.0, clip / length)
    optimizer.step()
    return ce.item()
