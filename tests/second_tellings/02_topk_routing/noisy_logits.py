import torch
import torch.nn.functional as F


def noise_at_evaluation_too(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    clean = torch.matmul(x_TD, w_gate_DE)
    std = F.softplus(torch.matmul(x_TD, w_noise_DE))
    return clean + std * noise_TE


def noise_at_evaluation_only(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    h = x_TD @ w_gate_DE
    if training:
        return h
    h = h + F.softplus(x_TD @ w_noise_DE) * noise_TE
    return h


def no_softplus(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    h = x_TD @ w_gate_DE
    return torch.addcmul(h, noise_TE, x_TD @ w_noise_DE) if training else h


def exp_instead_of_softplus(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    spread = torch.exp(torch.mm(x_TD, w_noise_DE)) * (1.0 if training else 0.0)
    return torch.mm(x_TD, w_gate_DE) + spread * noise_TE


def matrices_swapped(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    w_gate_DE, w_noise_DE = w_noise_DE, w_gate_DE
    out = x_TD @ w_gate_DE
    if training:
        out = out + F.softplus(x_TD @ w_noise_DE).mul(noise_TE)
    return out


def noise_drawn_again(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    logits = x_TD @ w_gate_DE
    if training:
        eps = torch.randn(logits.shape, dtype=logits.dtype)
        logits = logits + eps * F.softplus(x_TD @ w_noise_DE)
    return logits


def noise_of_fixed_scale(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    logits = x_TD @ w_gate_DE
    if training:
        logits = logits + noise_TE
    return logits
