import torch


def left_to_autograd(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    with torch.enable_grad():
        logits_TE = probs_TE.detach().log().requires_grad_()
        weights_TK = logits_TE.softmax(-1).gather(1, idx_TK)
        y_TD = (weights_TK.unsqueeze(-1) * expert_out_TKD).sum(1)
        y_TD.backward(dy_TD)
    return logits_TE.grad


def with_the_whole_jacobian(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    jacobian_TEE = torch.diag_embed(probs_TE) - probs_TE[:, :, None] * probs_TE[:, None, :]
    direct_TE = torch.zeros_like(probs_TE)
    direct_TE[torch.arange(len(idx_TK))[:, None], idx_TK] = (expert_out_TKD @ dy_TD[:, :, None]).squeeze(2)
    return torch.einsum("tij,tj->ti", jacobian_TEE, direct_TE)


def slot_by_slot(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    tokens, experts = probs_TE.shape
    dlogits_TE = torch.zeros_like(probs_TE)
    for t in range(tokens):
        for slot, chosen in enumerate(idx_TK[t].tolist()):
            signal = float(dy_TD[t] @ expert_out_TKD[t, slot]) * float(probs_TE[t, chosen])
            for e in range(experts):
                dlogits_TE[t, e] += signal * ((e == chosen) - float(probs_TE[t, e]))
    return dlogits_TE
