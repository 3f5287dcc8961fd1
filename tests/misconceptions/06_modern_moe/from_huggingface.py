import torch

from moe_course.grading.judge.catalogue import caught_by


def _halves(gate_up_proj_E2FD):
    return gate_up_proj_E2FD.chunk(2, dim=1)


@caught_by("shapes")
def left_output_first(gate_up_proj_E2FD, down_proj_EDF):
    """Their matrices multiply from the other side. Which axis of yours should be the input's?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD, up_EFD, down_proj_EDF


@caught_by("shapes")
def down_left_output_first(gate_up_proj_E2FD, down_proj_EDF):
    """You turned two of the three matrices. And the third?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF


@caught_by("shapes")
def gate_and_up_left_together(gate_up_proj_E2FD, down_proj_EDF):
    """How many matrices has an expert of this course?"""
    return gate_up_proj_E2FD.mT, down_proj_EDF.mT


@caught_by("shapes")
def all_axes_reversed(gate_up_proj_E2FD, down_proj_EDF):
    """`permute(2, 1, 0)` turns three axes round. Where do the experts end up?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD.permute(2, 1, 0), up_EFD.permute(2, 1, 0), down_proj_EDF.permute(2, 1, 0)


@caught_by("shapes")
def halved_along_the_experts(gate_up_proj_E2FD, down_proj_EDF):
    """Is it the experts that come in two halves, or the rows of each expert?"""
    w_gate, w_up = torch.tensor_split(gate_up_proj_E2FD, 2, dim=0)
    return w_gate.mT, w_up.mT, down_proj_EDF.mT


@caught_by("shapes")
def down_before_up(gate_up_proj_E2FD, down_proj_EDF):
    """In which order does the course hand over an expert's matrices?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD.mT, down_proj_EDF.mT, up_EFD.mT


@caught_by("gate_and_up")
def up_before_gate(gate_up_proj_E2FD, down_proj_EDF):
    """Which half comes first? With the two exchanged the layer still runs, so how would you notice?"""
    up_EFD, gate_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.mT


@caught_by("gate_and_up")
def gate_and_up_in_turns(gate_up_proj_E2FD, down_proj_EDF):
    """gpt-oss stores gate and up row by row in turns. Does Mixtral?"""
    gate_EFD, up_EFD = gate_up_proj_E2FD[:, 0::2], gate_up_proj_E2FD[:, 1::2]
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.mT


@caught_by("gate_and_up")
def reshaped_instead_of_transposed(gate_up_proj_E2FD, down_proj_EDF):
    """reshape gives the right shape. Does it exchange rows and columns?"""
    experts, d_model, d_ff = down_proj_EDF.shape
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return (
        gate_EFD.reshape(experts, d_model, d_ff),
        up_EFD.reshape(experts, d_model, d_ff),
        down_proj_EDF.mT,
    )


@caught_by("gate_and_up")
def reshaped_instead_of_transposed__all_three(gate_up_proj_E2FD, down_proj_EDF):
    """reshape gives the right shape. Does it exchange rows and columns?"""
    experts, d_model, d_ff = down_proj_EDF.shape
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    gate_EDF, up_EDF = (w.reshape(experts, d_model, d_ff) for w in (gate_EFD, up_EFD))
    return gate_EDF, up_EDF, down_proj_EDF.reshape(experts, d_ff, d_model)


@caught_by("gate_and_up")
def gate_twice(gate_up_proj_E2FD, down_proj_EDF):
    """You take the same rows for both. Where are the up projection's?"""
    gate_EFD, _ = _halves(gate_up_proj_E2FD)
    return gate_EFD.mT, gate_EFD.mT, down_proj_EDF.mT


@caught_by("gate_and_up")
def experts_in_reverse(gate_up_proj_E2FD, down_proj_EDF):
    """Expert 0 of the checkpoint should be which expert of your layer, for the router's sake?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD.flip(0))
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.flip(0).mT


@caught_by("gate_and_up")
def split_at_d_model(gate_up_proj_E2FD, down_proj_EDF):
    """After how many rows does the gate end: after D of them, or after F?"""
    d_ff = down_proj_EDF.shape[2]
    start = min(down_proj_EDF.shape[1], d_ff)
    gate_EFD, up_EFD = gate_up_proj_E2FD[:, :d_ff], gate_up_proj_E2FD[:, start : start + d_ff]
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.mT


@caught_by("shapes")
def split_at_d_model__both_parts(gate_up_proj_E2FD, down_proj_EDF):
    """After how many rows does the gate end: after D of them, or after F?"""
    d_model = down_proj_EDF.shape[1]
    return gate_up_proj_E2FD[:, :d_model].mT, gate_up_proj_E2FD[:, d_model:].mT, down_proj_EDF.mT


@caught_by("down")
def down_reshaped(gate_up_proj_E2FD, down_proj_EDF):
    """view and reshape read the same numbers in rows of another length. Is that a transpose?"""
    experts, d_model, d_ff = down_proj_EDF.shape
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.reshape(experts, d_ff, d_model)


@caught_by("down")
def turned_only_where_the_shape_demands_it(gate_up_proj_E2FD, down_proj_EDF):
    """A square matrix fits either way round. Does it mean the same?"""
    _experts, d_model, d_ff = down_proj_EDF.shape
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD)
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF if d_model == d_ff else down_proj_EDF.mT


@caught_by("other_inputs", form=True)
def always_float32(gate_up_proj_E2FD, down_proj_EDF):
    """A bfloat16 checkpoint comes back twice as large. Who asked for float32?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD.float())
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.float().mT


@caught_by("other_inputs", form=True)
def through_numpy(gate_up_proj_E2FD, down_proj_EDF):
    """Which of torch's dtypes does NumPy not know?"""
    gate, up = (torch.from_numpy(part.numpy()) for part in _halves(gate_up_proj_E2FD))
    return gate.mT, up.mT, torch.from_numpy(down_proj_EDF.numpy()).mT


@caught_by("other_inputs", form=True)
def checkpoint_turned_in_place(gate_up_proj_E2FD, down_proj_EDF):
    """transpose_ turns the caller's own tensor. What will they find in it afterwards?"""
    gate_EFD, up_EFD = _halves(gate_up_proj_E2FD.clone())
    return gate_EFD.mT, up_EFD.mT, down_proj_EDF.transpose_(1, 2)
