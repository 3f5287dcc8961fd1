import torch
from torch.nn.functional import silu


def token_by_token(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    rows = []
    for x_D, weights_K, idx_K in zip(x_TD, weights_TK, idx_TK.tolist(), strict=True):
        y_D = 0
        for weight, e in zip(weights_K, idx_K, strict=True):
            y_D = y_D + weight * ((silu(x_D @ w_gate_EDF[e]) * (x_D @ w_up_EDF[e])) @ w_down_EFD[e])
        rows.append(y_D.to(x_TD.dtype))
    return torch.stack(rows)


def every_expert_on_every_token(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    gates_TE = weights_TK.new_zeros(len(x_TD), len(w_gate_EDF)).scatter_add(1, idx_TK, weights_TK)
    hidden_ETF = silu(x_TD @ w_gate_EDF) * (x_TD @ w_up_EDF)
    return torch.einsum("te,etd->td", gates_TE.to(x_TD.dtype), hidden_ETF @ w_down_EFD)


def weights_gathered_for_each_slot(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y_TD = torch.zeros_like(x_TD)
    for slot, idx_T in enumerate(idx_TK.unbind(1)):
        gate_TF = torch.einsum("td,tdf->tf", x_TD, w_gate_EDF[idx_T])
        up_TF = torch.einsum("td,tdf->tf", x_TD, w_up_EDF[idx_T])
        out_TD = torch.einsum("tf,tfd->td", gate_TF.sigmoid() * gate_TF * up_TF, w_down_EFD[idx_T])
        y_TD = y_TD + (out_TD * weights_TK[:, slot : slot + 1]).to(x_TD.dtype)
    return y_TD


def chosen_experts_with_masks(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    y_TD = torch.zeros_like(x_TD)
    for e in idx_TK.unique().tolist():
        share_T = torch.where(idx_TK == e, weights_TK, 0).sum(1)
        mine_T = (idx_TK == e).any(1)
        rows = x_TD[mine_T]
        out = (silu(rows @ w_gate_EDF[e]) * (rows @ w_up_EDF[e])) @ w_down_EFD[e]
        y_TD[mine_T] += (share_T[mine_T].unsqueeze(1) * out).type_as(x_TD)
    return y_TD
