import torch


def written_with_sigmoid(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate_TF = x_TD @ w_gate_DF
    return torch.matmul(gate_TF * torch.sigmoid(gate_TF) * torch.matmul(x_TD, w_up_DF), w_down_FD)


def gate_and_up_in_one_product(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate_TF, up_TF = (x_TD @ torch.cat([w_gate_DF, w_up_DF], dim=1)).chunk(2, dim=-1)
    return torch.nn.SiLU()(gate_TF) * up_TF @ w_down_FD


def with_einsum(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate_TF = torch.einsum("td,df->tf", x_TD, w_gate_DF)
    up_TF = torch.einsum("td,df->tf", x_TD, w_up_DF)
    return torch.einsum("tf,fd->td", torch.nn.functional.silu(gate_TF) * up_TF, w_down_FD)
