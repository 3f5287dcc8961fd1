import torch
import torch.nn.functional as F


def _ffn(x, g, u, d):
    return (F.silu(x @ g) * (x @ u)) @ d


def last_expert_wins(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = torch.zeros_like(x_TD)
    for e in range(w_gate_EDF.shape[0]):
        for k in range(idx_TK.shape[1]):
            rows = (idx_TK[:, k] == e).nonzero().flatten()
            out = _ffn(x_TD[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
            y[rows] = (out * weights_TK[rows, k][:, None]).to(y.dtype)
    return y


def first_choice_only(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    rows = []
    for t in range(len(x_TD)):
        e = int(idx_TK[t, 0])
        rows.append(weights_TK[t, 0] * _ffn(x_TD[t], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e]))
    return torch.stack(rows).to(x_TD.dtype)


def weights_ignored(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    out = []
    for x, experts in zip(x_TD, idx_TK, strict=True):
        out.append(sum(_ffn(x, w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e]) for e in experts.tolist()))
    return torch.stack(out)


def residual_added(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    ys = []
    for t, x in enumerate(x_TD):
        y = x
        for w, e in zip(weights_TK[t], idx_TK[t].tolist(), strict=True):
            y = y + w.to(x.dtype) * _ffn(x, w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        ys.append(y)
    return torch.stack(ys)


def slots_taken_for_experts(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = 0
    for k in range(weights_TK.shape[1]):
        y = y + weights_TK[:, k : k + 1] * _ffn(x_TD, w_gate_EDF[k], w_up_EDF[k], w_down_EFD[k])
    return y.to(x_TD.dtype)


def tokens_weighted_before_the_expert(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y = torch.zeros_like(x_TD)
    for k in range(idx_TK.shape[1]):
        for t in range(idx_TK.shape[0]):
            e = idx_TK[t, k]
            x = (x_TD[t] * weights_TK[t, k]).to(x_TD.dtype)
            y[t] += _ffn(x, w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
    return y


def averaged_over_the_slots(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    parts = []
    for k in range(idx_TK.shape[1]):
        outs = [
            _ffn(x_TD[t], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
            for t, e in enumerate(idx_TK[:, k].tolist())
        ]
        parts.append(weights_TK[:, k, None] * torch.stack(outs))
    return torch.stack(parts).mean(0).to(x_TD.dtype)
