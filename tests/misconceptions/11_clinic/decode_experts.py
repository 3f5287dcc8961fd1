import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _expert(rows, gate_DF, up_DF, down_FD):
    return (F.silu(rows @ gate_DF.to(rows)) * (rows @ up_DF.to(rows))) @ down_FD.to(rows)


def _add(y_TD, x_TD, weights_TK, idx_TK, e, weights):
    token, slot = (idx_TK == e).nonzero(as_tuple=True)
    out = weights_TK[token, slot, None] * _expert(x_TD[token], *weights)
    return y_TD.index_add(0, token, out.to(y_TD.dtype))


def _over(experts, x_TD, weights_TK, idx_TK, *weights):
    y_TD = torch.zeros_like(x_TD)
    for e in experts:
        y_TD = _add(y_TD, x_TD, weights_TK, idx_TK, e, [w[e] for w in weights])
    return y_TD


def _hit(idx_TK):
    return idx_TK.unique().tolist()


@caught_by("outputs")
def first_choices_only(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """How many experts does a token visit: one, or k?"""
    first = weights_TK[:, :1], idx_TK[:, :1]
    return _over(_hit(first[1]), x_TD, *first, w_gate_EDF, w_up_EDF, w_down_EFD)


@caught_by("outputs")
def weights_left_out(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The work is small now. And how much does each expert's answer count?"""
    ones = torch.ones_like(weights_TK) + 0 * weights_TK
    return _over(_hit(idx_TK), x_TD, ones, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


@caught_by("outputs")
def hits_taken_for_their_numbers(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The list of hit experts is shorter. Is its second entry expert 1?"""
    y_TD = torch.zeros_like(x_TD)
    for place, e in enumerate(_hit(idx_TK)):
        y_TD = _add(y_TD, x_TD, weights_TK, idx_TK, e, [w[place] for w in (w_gate_EDF, w_up_EDF, w_down_EFD)])
    return y_TD


@caught_by("gradients")
def experts_detached(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The output is right. Which of the matrices still learn?"""
    return _over(_hit(idx_TK), x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD.detach())


@caught_by("forward_work")
def no_effect_yet(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    every = range(w_gate_EDF.shape[0])
    return _over(every, x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


@caught_by("forward_work")
def every_expert_asked(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """An idle expert multiplies nothing now. But how often do you ask whether one is idle?"""
    hit = [e for e in range(w_gate_EDF.shape[0]) if bool((idx_TK == e).any())]
    return _over(hit, x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


@caught_by("forward_work")
def counts_read_one_by_one(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The counts are made at once, and read E times. How many numbers does one `tolist` bring?"""
    counts_E = torch.bincount(idx_TK.flatten(), minlength=w_gate_EDF.shape[0])
    hit = [e for e in range(len(counts_E)) if counts_E[e].item()]
    return _over(hit, x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


@caught_by("forward_work")
def experts_of_each_assignment(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Each assignment brings its own copy of the expert. What if all tokens choose the same one?"""
    weights = [w[idx_TK.flatten()] for w in (w_gate_EDF, w_up_EDF, w_down_EFD)]
    rows = x_TD.repeat_interleave(idx_TK.shape[1], dim=0)[:, None]
    y_ND = weights_TK.flatten()[:, None] * _expert(rows, *weights)[:, 0]
    return y_ND.view(*idx_TK.shape, -1).sum(dim=1).to(x_TD.dtype)


@caught_by("forward_work")
def all_experts_in_one_product(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """One product for all experts is one operation. How many matrices are in it?"""
    out_ETD = _expert(x_TD, w_gate_EDF, w_up_EDF, w_down_EFD)
    gates_TE = weights_TK.new_zeros(len(x_TD), len(w_gate_EDF)).scatter_add(1, idx_TK, weights_TK)
    return (gates_TE.T[:, :, None] * out_ETD).sum(dim=0).to(x_TD.dtype)


@caught_by("backward_work")
def idle_experts_kept_in_the_graph(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The forward pass is short. Who walks through every expert when backward comes?"""

    class Dense(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args)
            return _over(_hit(args[2]), *args)

        @staticmethod
        def backward(ctx, dy_TD):
            args = [arg.detach() for arg in ctx.saved_tensors]
            leaves = [arg.requires_grad_() for place, arg in enumerate(args) if place != 2]
            with torch.enable_grad():
                y_TD = _over(range(len(args[3])), *args)
            found = torch.autograd.grad(y_TD, leaves, dy_TD)
            return found[0], found[1], None, *found[2:]

    return Dense.apply(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


@caught_by("form", form=True)
def dtype_of_the_weights(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Rows of bfloat16 and weights of float32: which dtype comes back?"""
    wide = torch.promote_types(x_TD.dtype, weights_TK.dtype)
    return _over(_hit(idx_TK), x_TD.to(wide), weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
