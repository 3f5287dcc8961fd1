import torch


def slices_and_transpose(gate_up_proj_E2FD, down_proj_EDF):
    d_ff = gate_up_proj_E2FD.shape[1] // 2
    w_gate_EDF = gate_up_proj_E2FD[:, :d_ff, :].transpose(1, 2).contiguous()
    w_up_EDF = gate_up_proj_E2FD[:, d_ff:, :].transpose(1, 2).contiguous()
    return w_gate_EDF, w_up_EDF, down_proj_EDF.transpose(1, 2).contiguous()


def turned_first_and_cut_afterwards(gate_up_proj_E2FD, down_proj_EDF):
    both_ED2F = torch.einsum("efd->edf", gate_up_proj_E2FD)
    w_gate_EDF, w_up_EDF = torch.tensor_split(both_ED2F, 2, dim=-1)
    return [w_gate_EDF, w_up_EDF, torch.einsum("edf->efd", down_proj_EDF)]


def expert_by_expert(gate_up_proj_E2FD, down_proj_EDF):
    experts = range(len(down_proj_EDF))
    halves = [gate_up_proj_E2FD[e].unflatten(0, (2, -1)) for e in experts]
    w_gate_EDF = torch.stack([half[0].T for half in halves])
    w_up_EDF = torch.stack([half[1].T for half in halves])
    return w_gate_EDF, w_up_EDF, torch.stack([down_proj_EDF[e].T for e in experts])
