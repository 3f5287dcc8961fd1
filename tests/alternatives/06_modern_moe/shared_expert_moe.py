import torch
import torch.nn.functional as F


def written_out(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    hidden_TF = F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)
    return torch.add(hidden_TF @ w_down_FD, routed_TD)


def one_product_for_gate_and_up(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate_TF, up_TF = (x_TD @ torch.cat([w_gate_DF, w_up_DF], dim=1)).chunk(2, dim=1)
    return routed_TD + (gate_TF * torch.sigmoid(gate_TF) * up_TF) @ w_down_FD


def as_one_more_expert_of_weight_one(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    hidden_TF = F.silu(F.linear(x_TD, w_gate_DF.T)).mul(F.linear(x_TD, w_up_DF.T))
    outputs = torch.stack([routed_TD, F.linear(hidden_TF, w_down_FD.T)])
    return outputs.sum(dim=0)
