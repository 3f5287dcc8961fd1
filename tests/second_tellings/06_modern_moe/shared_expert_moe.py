import torch
import torch.nn.functional as F


def shared_after_the_routed(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    gate = F.silu(routed_TD @ w_gate_DF)
    return routed_TD + (gate * (routed_TD @ w_up_DF)) @ w_down_FD


def residual_added(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    hidden = F.silu(x_TD.matmul(w_gate_DF)) * x_TD.matmul(w_up_DF)
    y = x_TD + routed_TD
    return y + hidden.matmul(w_down_FD)


def gated_as_in_qwen2(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    shared = (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD
    return routed_TD + shared * torch.sigmoid(shared)


def gate_and_up_swapped(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    a = x_TD @ w_up_DF
    return torch.addmm(routed_TD, a * torch.sigmoid(a) * (x_TD @ w_gate_DF), w_down_FD)


def activation_forgotten(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    return torch.einsum("tf,tf,fd->td", x_TD @ w_gate_DF, x_TD @ w_up_DF, w_down_FD) + routed_TD


def averaged(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    shared = (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD
    return torch.stack([shared, routed_TD]).mean(dim=0)


def shared_only(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    g = x_TD @ w_gate_DF
    return (g * g.sigmoid() * (x_TD @ w_up_DF)) @ w_down_FD


def shared_reads_the_routed_too(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    h = x_TD + routed_TD
    shared = (F.silu(h @ w_gate_DF) * (h @ w_up_DF)) @ w_down_FD
    return shared + routed_TD


def routed_detached(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    y = routed_TD.detach().clone()
    return y + (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


def added_in_place(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    shared = (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD
    return routed_TD.add_(shared)
