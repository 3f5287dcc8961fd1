import torch


def written_out(x_TD, w_DE):
    logits_TE = torch.matmul(x_TD.to(torch.float32), w_DE.to(torch.float32))
    exp_TE = torch.exp(logits_TE - logits_TE.max(dim=1, keepdim=True).values)
    return exp_TE / exp_TE.sum(dim=1, keepdim=True)


def with_einsum_and_logsumexp(x_TD, w_DE):
    logits_TE = torch.einsum("td,de->te", x_TD.float(), w_DE.float())
    return (logits_TE - logits_TE.logsumexp(-1, keepdim=True)).exp()


def token_by_token(x_TD, w_DE):
    return torch.stack([torch.nn.functional.softmax(w_DE.float().T @ x_D.float(), dim=0) for x_D in x_TD])


def as_a_linear_layer(x_TD, w_DE):
    logits_TE = torch.nn.functional.linear(x_TD.float(), w_DE.float().t())
    return torch.nn.Softmax(dim=-1)(logits_TE)
