import torch


def softmax_over_tokens(x_TD, w_DE):
    logits = torch.einsum("td,de->te", x_TD.float(), w_DE.float())
    e = torch.exp(logits - logits.max(dim=0).values)
    return e / e.sum(dim=0)


def logits_returned(x_TD, w_DE):
    return torch.matmul(x_TD.to(torch.float32), w_DE.to(torch.float32))


def sigmoid_instead_of_softmax(x_TD, w_DE):
    z = x_TD.float() @ w_DE.float()
    return 1 / (1 + torch.exp(-z))


def scaled_like_attention(x_TD, w_DE):
    d = x_TD.size(-1)
    z = x_TD.float().mm(w_DE.float()).div(d**0.5)
    return z.softmax(dim=1)


def bfloat16_throughout(x_TD, w_DE):
    return torch.nn.functional.softmax(x_TD @ w_DE, dim=1)


def tokens_detached(x_TD, w_DE):
    with torch.no_grad():
        x = x_TD.clone().float()
    return torch.softmax(x.matmul(w_DE.float()), 1)


def exp_by_hand(x_TD, w_DE):
    scores = (x_TD.float() @ w_DE.float()).exp()
    return scores / scores.sum(1, keepdim=True)
