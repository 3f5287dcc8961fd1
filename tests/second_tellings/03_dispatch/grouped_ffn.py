import torch
import torch.nn.functional as F


def _chunks(x_ND, counts_E):
    return torch.split(x_ND, counts_E.tolist())


def gate_and_up_exchanged(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    owner = torch.repeat_interleave(torch.arange(len(counts_E)), counts_E)
    up = torch.einsum("nd,ndf->nf", x_ND, w_up_EDF[owner])
    gate = torch.einsum("nd,ndf->nf", x_ND, w_gate_EDF[owner])
    return torch.einsum("nf,nfd->nd", F.silu(up) * gate, w_down_EFD[owner])


def no_silu(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    out = []
    for e, x in enumerate(_chunks(x_ND, counts_E)):
        out.append(((x @ w_gate_EDF[e]) * (x @ w_up_EDF[e])) @ w_down_EFD[e])
    return torch.cat(out)


def relu_for_silu(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    out = []
    for x, g, u, d in zip(_chunks(x_ND, counts_E), w_gate_EDF, w_up_EDF, w_down_EFD, strict=True):
        out.append(((x @ g).clamp(min=0) * (x @ u)) @ d)
    return torch.cat(out)


def groups_of_equal_size(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    pieces = torch.tensor_split(x_ND, len(counts_E))
    outs = [(F.silu(x @ w_gate_EDF[e]) * (x @ w_up_EDF[e])) @ w_down_EFD[e] for e, x in enumerate(pieces)]
    return torch.cat(outs)


def residual_added(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    y, start = x_ND.clone(), 0
    for e, n in enumerate(counts_E.tolist()):
        x = x_ND[start : start + n]
        y[start : start + n] += (F.silu(x @ w_gate_EDF[e]) * (x @ w_up_EDF[e])) @ w_down_EFD[e]
        start += n
    return y


def stops_at_an_empty_expert(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    y, at, e = torch.zeros_like(x_ND), 0, 0
    while e < len(counts_E) and counts_E[e] > 0:
        stop = at + int(counts_E[e])
        x = x_ND[at:stop]
        y[at:stop] = (F.silu(x @ w_gate_EDF[e]) * (x @ w_up_EDF[e])) @ w_down_EFD[e]
        at, e = stop, e + 1
    return y


def first_expert_for_all(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    hidden = F.silu(x_ND.matmul(w_gate_EDF[0])) * x_ND.matmul(w_up_EDF[0])
    return hidden.matmul(w_down_EFD[0])
