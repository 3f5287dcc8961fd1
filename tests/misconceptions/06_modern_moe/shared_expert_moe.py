import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    return (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("shared_alone")
def shared_after_the_routed(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """A shared expert stands beside the routed ones, not behind them. What should it read?"""
    return routed_TD + _shared(routed_TD, w_gate_DF, w_up_DF, w_down_FD)


@caught_by("shared_alone")
def residual_added(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Who adds the residual, the layer or the block around it?"""
    return x_TD + routed_TD + _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)


@caught_by("shared_alone")
def gated_as_in_qwen2(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Qwen2 multiplies its shared expert with a sigmoid. Does the exercise ask for a gate?"""
    gate_T1 = torch.sigmoid(x_TD.mean(dim=1, keepdim=True))
    return routed_TD + gate_T1 * _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)


@caught_by("shared_alone")
def gated_as_in_qwen2__by_its_own_output(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Qwen2 multiplies its shared expert with a sigmoid. Does the exercise ask for a gate?"""
    shared_TD = _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)
    return routed_TD + torch.sigmoid(shared_TD) * shared_TD


@caught_by("shared_alone")
def gate_and_up_swapped(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Which of the two projections passes through silu?"""
    return routed_TD + _shared(x_TD, w_up_DF, w_gate_DF, w_down_FD)


@caught_by("shared_alone")
def activation_forgotten(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """The shared expert is a SwiGLU like the others. Where is its silu?"""
    return routed_TD + ((x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("shared_alone")
def averaged(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Two parts, but is their mean asked for, or their sum?"""
    return (routed_TD + _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)) / 2


@caught_by("added")
def shared_only(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """What has become of the routed experts' work?"""
    return _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)


@caught_by("added")
def routed_subtracted(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Does the shared expert correct the routed ones, or add to them?"""
    return _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD) - routed_TD


@caught_by("added")
def multiplied(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Where the shared expert returns 0, should the whole layer return 0?"""
    shared_TD = _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)
    return torch.where(routed_TD == 0, shared_TD, routed_TD * shared_TD)


@caught_by("added")
def shared_reads_the_routed_too(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Has the shared expert's input anything to do with what the routed experts returned?"""
    return routed_TD + _shared(x_TD + routed_TD, w_gate_DF, w_up_DF, w_down_FD)


@caught_by("gradients")
def routed_detached(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """How do the routed experts learn, if the sum does not lead back to them?"""
    return routed_TD.detach() + _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)


@caught_by("gradients")
def shared_frozen(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """The shared expert is used by every token. Should it learn from none?"""
    with torch.no_grad():
        shared_TD = _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)
    return routed_TD + shared_TD


@caught_by("gradients")
def tokens_detached(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """The layers below learn through the tokens. Does your shared expert let their gradient through?"""
    return routed_TD + _shared(x_TD.detach(), w_gate_DF, w_up_DF, w_down_FD)


@caught_by("other_inputs", form=True)
def result_always_float32(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Which dtype do the layers above expect back?"""
    weights = (w.float() for w in (w_gate_DF, w_up_DF, w_down_FD))
    return routed_TD.float() + _shared(x_TD.float(), *weights)


@caught_by("other_inputs", form=True)
def added_in_place(x_TD, routed_TD, w_gate_DF, w_up_DF, w_down_FD):
    """`+=` writes into the tensor that you were given. Who else may still need it?"""
    shared_TD = _shared(x_TD, w_gate_DF, w_up_DF, w_down_FD)
    routed_TD += shared_TD
    return routed_TD
