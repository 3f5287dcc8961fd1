import torch


def early_return(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    clean_TE = x_TD @ w_gate_DE
    if not training:
        return clean_TE
    return clean_TE + noise_TE * torch.nn.functional.softplus(x_TD @ w_noise_DE)


def with_logaddexp(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    raw_TE = torch.einsum("td,de->te", x_TD, w_noise_DE)
    std_TE = torch.logaddexp(raw_TE, torch.zeros_like(raw_TE))  # log(e^z + e^0)
    return torch.einsum("td,de->te", x_TD, w_gate_DE) + float(training) * std_TE * noise_TE


def router_in_float32(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    if x_TD.dtype is torch.bfloat16:
        x_TD, w_gate_DE, w_noise_DE, noise_TE = (a.float() for a in (x_TD, w_gate_DE, w_noise_DE, noise_TE))
    both_T2E = x_TD @ torch.cat([w_gate_DE, w_noise_DE], dim=1)
    clean_TE, raw_TE = both_T2E.split(w_gate_DE.shape[1], dim=1)
    return torch.addcmul(clean_TE, noise_TE, torch.nn.Softplus()(raw_TE)) if training else clean_TE
