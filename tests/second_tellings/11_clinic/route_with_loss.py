import torch
import torch.nn.functional as F


def _parts(x, r, k):
    logits = torch.einsum("td,de->te", x.float(), r.float())
    p = F.softmax(logits, dim=1)
    w, i = torch.topk(p, k, dim=1)
    f = torch.bincount(i.reshape(-1), minlength=p.shape[1]).float() / i.numel()
    return logits, p, (w / w.sum(1, keepdim=True)).to(x.dtype), i, f


def no_effect_yet(x_TD, router_DE, k):
    _, p, w, i, f = _parts(x_TD, router_DE, k)
    return w, i, len(f) * torch.dot(f, torch.softmax(p, dim=1).mean(0))


def coefficient_raised(x_TD, router_DE, k):
    _, p, w, i, f = _parts(x_TD, router_DE, k)
    q = p.exp() / p.exp().sum(1, keepdim=True)
    return w, i, 5.0 * len(f) * (f * q.mean(0)).sum()


def weights_from_logits(x_TD, router_DE, k):
    z, p, _, i, f = _parts(x_TD, router_DE, k)
    w = z.gather(1, i)
    return (w / w.sum(1, keepdim=True)).to(x_TD.dtype), i, len(f) * (f * p.mean(0)).sum()


def uniform_gives_k(x_TD, router_DE, k):
    _, p, w, i, _ = _parts(x_TD, router_DE, k)
    mask = F.one_hot(i, p.shape[1]).float()
    return w, i, (mask.mean(0) * p.mean(0)[None]).sum() * p.shape[1]


def loss_detached(x_TD, router_DE, k):
    _, p, w, i, f = _parts(x_TD, router_DE, k)
    with torch.no_grad():
        loss = (f * p.mean(0)).sum() * len(f)
    return w, i, loss
