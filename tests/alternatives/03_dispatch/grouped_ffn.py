import torch
import torch.nn.functional as F


def split_and_cat(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    outs = []
    for x, gate, up, down in zip(
        x_ND.split(counts_E.tolist()), w_gate_EDF, w_up_EDF, w_down_EFD, strict=True
    ):
        outs.append((F.silu(x @ gate) * (x @ up)) @ down)
    return torch.cat(outs)


def slices_of_a_new_tensor(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    y_ND, start = torch.empty_like(x_ND), 0
    for e in range(w_gate_EDF.shape[0]):
        end = start + int(counts_E[e])
        if end > start:
            x = x_ND[start:end]
            y_ND[start:end] = (F.silu(x @ w_gate_EDF[e]) * (x @ w_up_EDF[e])) @ w_down_EFD[e]
        start = end
    return y_ND


def padded_batches(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """All groups padded to the longest, three batched products, the padding cut off again."""
    groups = x_ND.split(counts_E.tolist())
    x_ECD = torch.nn.utils.rnn.pad_sequence(groups, batch_first=True)
    y_ECD = (F.silu(x_ECD @ w_gate_EDF) * (x_ECD @ w_up_EDF)) @ w_down_EFD
    return y_ECD[torch.arange(x_ECD.shape[1]) < counts_E[:, None]]


def weights_of_every_row(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    expert_N = torch.repeat_interleave(torch.arange(len(counts_E)), counts_E)
    w_gate, w_up, w_down = (w[expert_N] for w in (w_gate_EDF, w_up_EDF, w_down_EFD))
    x_N1D = x_ND[:, None]
    return (F.silu(x_N1D @ w_gate) * (x_N1D @ w_up) @ w_down)[:, 0]
