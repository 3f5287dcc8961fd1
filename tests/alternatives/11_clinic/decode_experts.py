import torch
import torch.nn.functional as F


def _expert(rows, gate_DF, up_DF, down_FD):
    return (F.silu(rows @ gate_DF.to(rows)) * (rows @ up_DF.to(rows))) @ down_FD.to(rows)


def loop_over_the_hit(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y_TD = torch.zeros_like(x_TD)
    for e in idx_TK.unique().tolist():
        token, slot = torch.where(idx_TK == e)
        out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y_TD = y_TD.index_add(0, token, (out * weights_TK[token, slot, None]).to(y_TD.dtype))
    return y_TD


def counts_in_one_list(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    flat_N = idx_TK.flatten()
    order_N = flat_N.argsort(stable=True)
    counts = torch.bincount(flat_N, minlength=len(w_gate_EDF)).tolist()
    rows, start, parts = x_TD[order_N // idx_TK.shape[1]], 0, []
    for e, count in enumerate(counts):
        if count:
            parts.append(_expert(rows[start : start + count], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e]))
            start += count
    y_ND = torch.cat(parts)[order_N.argsort()] * weights_TK.flatten()[:, None]
    return y_ND.view(*idx_TK.shape, -1).sum(1).to(x_TD.dtype)


def padded_products_of_the_hit(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    hit_H, place_TK = idx_TK.unique(return_inverse=True)
    gates_TH = weights_TK.new_zeros(len(x_TD), len(hit_H)).scatter_add(1, place_TK, weights_TK)
    rows = x_TD.expand(len(hit_H), *x_TD.shape)
    out_HTD = _expert(rows, w_gate_EDF[hit_H], w_up_EDF[hit_H], w_down_EFD[hit_H])
    return (gates_TH.T[..., None] * out_HTD).sum(0).to(x_TD.dtype)
