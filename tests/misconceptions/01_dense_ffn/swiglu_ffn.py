import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


@caught_by("shape")
def down_projection_forgotten(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """How wide is what you return, and how wide is the stream that it goes back to?"""
    return F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)


@caught_by("values")
def silu_on_the_up_path(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Which of the two projections decides how far the other one gets through, and so passes through silu?"""
    return ((x_TD @ w_gate_DF) * F.silu(x_TD @ w_up_DF)) @ w_down_FD


@caught_by("values")
def no_activation(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Without silu this is a bilinear layer, not SwiGLU. Which of the two paths should pass through silu?"""
    return ((x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("values")
def silu_of_the_product(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Does silu act on the gate alone, or on the product of both paths?"""
    return F.silu((x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("values")
def sigmoid_instead_of_silu(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """silu(z) is z·sigmoid(z). Which factor is missing?"""
    return ((x_TD @ w_gate_DF).sigmoid() * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("values")
def gelu_instead_of_silu(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """That is GEGLU. Which activation gives SwiGLU its name?"""
    return (F.gelu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("values")
def paths_added(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """A gate multiplies. What do you do with the two paths?"""
    return (F.silu(x_TD @ w_gate_DF) + x_TD @ w_up_DF) @ w_down_FD


@caught_by("values")
def no_up_path(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Two of the three matrices are in use. What is w_up for?"""
    return F.silu(x_TD @ w_gate_DF) @ w_down_FD


@caught_by("values")
def residual_added(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """Who adds the residual, the FFN or the block around it?"""
    return x_TD + (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("gradients")
def gate_detached(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """How shall w_gate ever be trained if the gate's graph is cut?"""
    return (F.silu(x_TD @ w_gate_DF).detach() * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("other_inputs", form=True)
def tokens_cast_to_float32(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """The tokens are float32 now. And the weights that they meet?"""
    x_TD = x_TD.float()
    return (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


@caught_by("other_inputs", form=True)
def always_float32(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    """What dtype should come back when x is bfloat16?"""
    x_TD, w_gate_DF, w_up_DF, w_down_FD = (a.float() for a in (x_TD, w_gate_DF, w_up_DF, w_down_FD))
    return (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD
