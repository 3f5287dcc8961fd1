import torch


def left_output_first(gate_up_proj_E2FD, down_proj_EDF):
    width = gate_up_proj_E2FD.shape[1] // 2
    gate = gate_up_proj_E2FD[:, :width].clone()
    up = gate_up_proj_E2FD[:, width:].clone()
    return gate, up, down_proj_EDF.clone()


def down_left_output_first(gate_up_proj_E2FD, down_proj_EDF):
    gate, up = torch.chunk(gate_up_proj_E2FD.transpose(1, 2), 2, dim=2)
    return gate.contiguous(), up.contiguous(), down_proj_EDF.contiguous()


def gate_and_up_left_together(gate_up_proj_E2FD, down_proj_EDF):
    return gate_up_proj_E2FD.permute(0, 2, 1).contiguous(), down_proj_EDF.permute(0, 2, 1).contiguous()


def all_axes_reversed(gate_up_proj_E2FD, down_proj_EDF):
    width = down_proj_EDF.shape[2]
    turned = gate_up_proj_E2FD.permute(2, 1, 0)
    return (
        turned[:, :width].contiguous(),
        turned[:, width:].contiguous(),
        down_proj_EDF.permute(2, 1, 0).contiguous(),
    )


def down_before_up(gate_up_proj_E2FD, down_proj_EDF):
    width = down_proj_EDF.shape[-1]
    gate, up = gate_up_proj_E2FD.split(width, dim=1)
    turned = [m.transpose(-1, -2).contiguous() for m in (gate, down_proj_EDF, up)]
    return tuple(turned)


def up_before_gate(gate_up_proj_E2FD, down_proj_EDF):
    width = down_proj_EDF.shape[-1]
    turned = gate_up_proj_E2FD.transpose(1, 2)
    return (
        turned[..., width:].contiguous(),
        turned[..., :width].contiguous(),
        down_proj_EDF.transpose(1, 2).contiguous(),
    )


def gate_and_up_in_turns(gate_up_proj_E2FD, down_proj_EDF):
    E, both, D = gate_up_proj_E2FD.shape
    pairs = gate_up_proj_E2FD.view(E, both // 2, 2, D).permute(2, 0, 3, 1).contiguous()
    return pairs[0], pairs[1], down_proj_EDF.transpose(1, 2).contiguous()


def reshaped_instead_of_transposed(gate_up_proj_E2FD, down_proj_EDF):
    E, D, width = down_proj_EDF.shape
    gate, up = gate_up_proj_E2FD[:, :width], gate_up_proj_E2FD[:, width:]
    return gate.reshape(E, D, width), up.reshape(E, D, width), down_proj_EDF.reshape(E, width, D)


def gate_twice(gate_up_proj_E2FD, down_proj_EDF):
    width = gate_up_proj_E2FD.shape[1] // 2
    gate = torch.stack([expert[:width].T for expert in gate_up_proj_E2FD])
    up = torch.stack([expert[:width].T for expert in gate_up_proj_E2FD])
    return gate, up, torch.stack([expert.T for expert in down_proj_EDF])


def split_at_d_model(gate_up_proj_E2FD, down_proj_EDF):
    D = down_proj_EDF.shape[1]
    gate, up = gate_up_proj_E2FD[:, :D, :], gate_up_proj_E2FD[:, D:, :]
    return gate.mT.contiguous(), up.mT.contiguous(), down_proj_EDF.mT.contiguous()


def down_reshaped(gate_up_proj_E2FD, down_proj_EDF):
    E, D, width = down_proj_EDF.shape
    gate, up = gate_up_proj_E2FD.mT.chunk(2, dim=-1)
    return gate.contiguous(), up.contiguous(), down_proj_EDF.contiguous().view(E, width, D)


def always_float32(gate_up_proj_E2FD, down_proj_EDF):
    gate, up = gate_up_proj_E2FD.to(torch.float32).mT.chunk(2, dim=-1)
    return gate.contiguous(), up.contiguous(), down_proj_EDF.to(torch.float32).mT.contiguous()
