import torch
import torch.nn.functional as F


def silu_on_the_up_path(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    up = x_TD.matmul(w_up_DF)
    gate = x_TD.matmul(w_gate_DF)
    return (gate * up * up.sigmoid()).matmul(w_down_FD)


def no_activation(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    return torch.einsum("td,df,tc,cf,fe->te", x_TD, w_gate_DF, x_TD, w_up_DF, w_down_FD)


def silu_of_the_product(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    hidden = torch.mul(x_TD @ w_gate_DF, x_TD @ w_up_DF)
    hidden = hidden * torch.sigmoid(hidden)
    return hidden @ w_down_FD


def sigmoid_instead_of_silu(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate = 1 / (1 + torch.exp(-(x_TD @ w_gate_DF)))
    return torch.mm(gate * torch.mm(x_TD, w_up_DF), w_down_FD)


def gelu_instead_of_silu(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate = torch.nn.GELU(approximate="tanh")(x_TD @ w_gate_DF)
    return (gate * (x_TD @ w_up_DF)) @ w_down_FD


def paths_added(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    return torch.add(x_TD @ w_up_DF, F.silu(x_TD @ w_gate_DF)) @ w_down_FD


def no_up_path(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate = x_TD @ w_gate_DF
    return (gate / (1 + torch.exp(-gate))) @ w_down_FD


def residual_added(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    residual = x_TD
    hidden = F.silu(x_TD @ w_gate_DF).mul(x_TD @ w_up_DF)
    return torch.addmm(residual, hidden, w_down_FD)


def down_projection_forgotten(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate = x_TD @ w_gate_DF
    return gate * torch.sigmoid(gate) * (x_TD @ w_up_DF)


def always_float32(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    x, gate, up, down = (m.to(torch.float32) for m in (x_TD, w_gate_DF, w_up_DF, w_down_FD))
    return (F.silu(x @ gate) * (x @ up)) @ down
