import torch


def softmax_then_max(logits_TE):
    weight_T, idx_T = torch.softmax(logits_TE, dim=1, dtype=torch.float32).max(dim=1)
    return weight_T.type_as(logits_TE), idx_T


def max_returned_as_it_is(logits_TE):
    return logits_TE.softmax(-1).max(-1)


def one_over_the_sum(logits_TE):
    idx_T = logits_TE.argmax(1)
    z_TE = logits_TE.double()
    top_T1 = z_TE.gather(1, idx_T.unsqueeze(1))
    return [(1 / torch.exp(z_TE - top_T1).sum(1)).to(logits_TE.dtype), idx_T]


def token_by_token(logits_TE):
    probs = [torch.nn.functional.softmax(logits_E.float(), 0) for logits_E in logits_TE]
    idx = [int(p_E.argmax()) for p_E in probs]
    weight_T = torch.stack([p_E[e] for p_E, e in zip(probs, idx, strict=True)])
    return weight_T.to(logits_TE.dtype), torch.tensor(idx)
