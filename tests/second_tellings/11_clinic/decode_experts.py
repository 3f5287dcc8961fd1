import torch
import torch.nn.functional as F


def _ffn(x, g, u, d):
    return torch.mul(F.silu(torch.matmul(x, g)), torch.matmul(x, u)) @ d


def no_effect_yet(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = torch.zeros_like(x_TD)
    for e, (g, u, d) in enumerate(
        zip(w_gate_EDF.unbind(), w_up_EDF.unbind(), w_down_EFD.unbind(), strict=True)
    ):
        mask = idx_TK == e
        rows = mask.any(1)
        w = (weights_TK * mask).sum(1)[rows, None]
        part = (w * _ffn(x_TD[rows], g.to(x_TD), u.to(x_TD), d.to(x_TD))).to(y.dtype)
        y = y.index_put((rows,), part, accumulate=True)
    return y


def every_expert_asked(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = torch.zeros_like(x_TD)
    for e in range(len(w_gate_EDF)):
        t, s = torch.where(idx_TK == e)
        if len(t) == 0:
            continue
        part = weights_TK[t, s].unsqueeze(1) * _ffn(x_TD[t], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y = y.index_add(0, t, part.to(y.dtype))
    return y


def experts_of_each_assignment(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    rows = []
    for t in range(len(x_TD)):
        parts = [
            weights_TK[t, s] * _ffn(x_TD[t : t + 1], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])[0]
            for s, e in enumerate(idx_TK[t].tolist())
        ]
        rows.append(sum(parts))
    return torch.stack(rows).to(x_TD.dtype)


def first_choices_only(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = torch.zeros_like(x_TD)
    for e in set(idx_TK[:, 0].tolist()):
        t = (idx_TK[:, 0] == e).nonzero().flatten()
        part = weights_TK[t, :1] * _ffn(x_TD[t], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y = y.index_add(0, t, part.to(y.dtype))
    return y


def weights_left_out(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = torch.zeros_like(x_TD)
    for e in set(idx_TK.flatten().tolist()):
        t = (idx_TK == e).any(1).nonzero()[:, 0]
        y = y.index_add(0, t, _ffn(x_TD[t], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e]))
    return y
