import torch


def _rows(buf_ECD, idx_TK, pos_TK):
    C = buf_ECD.shape[1]
    kept = pos_TK < C
    rows = buf_ECD[idx_TK, torch.where(kept, pos_TK, 0)]
    return torch.where(kept[..., None], rows, 0), kept


def weights_forgotten(buf_ECD, idx_TK, pos_TK, weights_TK):
    return _rows(buf_ECD, idx_TK, pos_TK)[0].sum(1)


def first_choice_only(buf_ECD, idx_TK, pos_TK, weights_TK):
    rows, _ = _rows(buf_ECD, idx_TK, pos_TK)
    return rows[:, 0] * weights_TK[:, 0, None].to(rows.dtype)


def mean_over_the_slots(buf_ECD, idx_TK, pos_TK, weights_TK):
    rows, _ = _rows(buf_ECD, idx_TK, pos_TK)
    return (rows * weights_TK.to(rows.dtype)[..., None]).mean(dim=1)


def reads_the_last_slot(buf_ECD, idx_TK, pos_TK, weights_TK):
    out = []
    for t in range(len(idx_TK)):
        y = 0
        for k in range(idx_TK.shape[1]):
            c = min(int(pos_TK[t, k]), buf_ECD.shape[1] - 1)
            y = y + weights_TK[t, k].to(buf_ECD.dtype) * buf_ECD[idx_TK[t, k], c]
        out.append(y)
    return torch.stack(out)


def the_rest_scaled_up(buf_ECD, idx_TK, pos_TK, weights_TK):
    rows, kept = _rows(buf_ECD, idx_TK, pos_TK)
    w = weights_TK * kept
    before, after = weights_TK.sum(1, keepdim=True), w.sum(1, keepdim=True)
    w = torch.where(after > 0, w * before / after.clamp(min=1e-9), w)
    return torch.einsum("tk,tkd->td", w.to(rows.dtype), rows)


def whole_token_dropped(buf_ECD, idx_TK, pos_TK, weights_TK):
    rows, kept = _rows(buf_ECD, idx_TK, pos_TK)
    y = torch.einsum("tk,tkd->td", weights_TK.to(rows.dtype), rows)
    return torch.where(kept.all(dim=1, keepdim=True), y, torch.zeros_like(y))
