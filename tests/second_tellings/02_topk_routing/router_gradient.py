import torch


def _scatter(signal, idx, shape, dtype):
    out = torch.zeros(shape, dtype=dtype)
    for t in range(idx.shape[0]):
        for k in range(idx.shape[1]):
            out[t, idx[t, k]] = signal[t, k]
    return out


def softmax_forgotten(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    signal = torch.einsum("td,tkd->tk", dy_TD, expert_out_TKD)
    return _scatter(signal, idx_TK, probs_TE.shape, probs_TE.dtype)


def only_the_diagonal_of_the_softmax(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    dp = _scatter((dy_TD[:, None] * expert_out_TKD).sum(2), idx_TK, probs_TE.shape, probs_TE.dtype)
    return dp * probs_TE * (1 - probs_TE)


def no_mean_subtracted(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    g = torch.einsum("td,tkd->tk", dy_TD, expert_out_TKD).to(probs_TE.dtype)
    return torch.zeros_like(probs_TE).scatter_add(1, idx_TK, g * probs_TE.gather(1, idx_TK))


def sign_flipped(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    dp = _scatter((dy_TD[:, None] * expert_out_TKD).sum(2), idx_TK, probs_TE.shape, probs_TE.dtype)
    inner = torch.einsum("te,te->t", dp, probs_TE)
    return probs_TE * (inner[:, None] - dp)


def others_get_nothing(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    dp = _scatter((dy_TD[:, None] * expert_out_TKD).sum(2), idx_TK, probs_TE.shape, probs_TE.dtype)
    full = probs_TE * (dp - (probs_TE * dp).sum(1, keepdim=True))
    mask = torch.zeros_like(probs_TE).scatter(1, idx_TK, 1.0)
    return full * mask


def slots_taken_for_experts(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    dp = torch.zeros_like(probs_TE)
    for k in range(idx_TK.shape[1]):
        dp[:, k] = (dy_TD * expert_out_TKD[:, k]).sum(-1)
    return probs_TE * (dp - (probs_TE * dp).sum(-1, keepdim=True))
