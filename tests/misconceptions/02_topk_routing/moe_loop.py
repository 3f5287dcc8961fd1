import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _expert(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    return (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD


def _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """(tokens, their weighted outputs) of one expert after another."""
    for e in range(len(w_gate_EDF)):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        yield token, (weights_TK[token, slot, None] * out).to(x_TD.dtype)


@caught_by("routes")
def last_expert_wins(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """You write into a token's row once for each of its experts. What is left of the first one?"""
    y_TD = torch.zeros_like(x_TD)
    for token, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] = out
    return y_TD


@caught_by("routes")
def first_choice_only(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """A token has k choices. How many of them do you look at?"""
    y_TD = torch.zeros_like(x_TD)
    first = (weights_TK[:, :1], idx_TK[:, :1])
    for token, out in _weighted(x_TD, *first, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD


@caught_by("routes")
def averaged_over_the_slots(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The weights already say how much each expert counts. Why divide by k as well?"""
    y_TD = torch.zeros_like(x_TD)
    for token, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out / idx_TK.shape[1]
    return y_TD


@caught_by("routes")
def slots_taken_for_experts(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Is the expert of slot 1 the expert number 1? Where is it written which one it is?"""
    y_TD = torch.zeros_like(x_TD)
    for slot in range(idx_TK.shape[1]):
        out = _expert(x_TD, w_gate_EDF[slot], w_up_EDF[slot], w_down_EFD[slot])
        y_TD = y_TD + weights_TK[:, slot, None] * out
    return y_TD


@caught_by("routes")
def all_experts_for_every_token(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Every token passes through every expert here. What is idx_TK for?"""
    experts = zip(w_gate_EDF, w_up_EDF, w_down_EFD, strict=True)
    return weights_TK.sum(dim=1, keepdim=True) * sum(_expert(x_TD, *expert) for expert in experts)


@caught_by("routes")
def residual_added(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Who adds the residual, the layer or the block around it?"""
    y_TD = x_TD.clone()
    for token, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD


@caught_by("weights")
def weights_ignored(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Do all experts of a token count the same?"""
    y_TD = torch.zeros_like(x_TD)
    for token, out in _weighted(x_TD, torch.ones_like(weights_TK), idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD


@caught_by("weights")
def first_weight_for_every_slot(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Which weight does a token's second expert get?"""
    y_TD = torch.zeros_like(x_TD)
    first_TK = weights_TK[:, :1].expand_as(weights_TK)
    for token, out in _weighted(x_TD, first_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD


@caught_by("weights")
def weights_renormalised(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Whether weights sum to 1 was decided before they came here. Why decide it again?"""
    y_TD = torch.zeros_like(x_TD)
    shares_TK = weights_TK / weights_TK.sum(dim=1, keepdim=True)
    for token, out in _weighted(x_TD, shares_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD


@caught_by("weights")
def tokens_weighted_before_the_expert(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """An expert is not linear. Is half its output the same as its output for half the token?"""
    y_TD = torch.zeros_like(x_TD)
    for e in range(len(w_gate_EDF)):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        rows = (weights_TK[token, slot, None] * x_TD[token]).to(x_TD.dtype)
        y_TD[token] += _expert(rows, w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
    return y_TD


@caught_by("weights")
def column_e_of_the_weights(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """weights_TK has a column for each slot. Why do you look in column e?"""
    y_TD = torch.zeros_like(x_TD)
    for e in range(len(w_gate_EDF)):
        token = (idx_TK == e).any(dim=1).nonzero()[:, 0]
        out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y_TD[token] += weights_TK[token, e, None] * out
    return y_TD


@caught_by("empty_experts")
def experts_numbered_by_appearance(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """unique() skips the experts that nobody chose. Is its i-th entry still expert i?"""
    y_TD = torch.zeros_like(x_TD)
    for position, e in enumerate(idx_TK.unique()):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        out = _expert(x_TD[token], w_gate_EDF[position], w_up_EDF[position], w_down_EFD[position])
        y_TD[token] += (weights_TK[token, slot, None] * out).to(y_TD.dtype)
    return y_TD


@caught_by("empty_experts")
def stops_at_an_empty_expert(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Expert 2 has no token. What about expert 3?"""
    y_TD = torch.zeros_like(x_TD)
    for token, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        if len(token) == 0:
            break
        y_TD[token] += out
    return y_TD


@caught_by("empty_experts")
def nothing_to_stack(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """What does torch.stack make of an empty list?"""
    y_TD = torch.zeros_like(x_TD)
    for e in range(len(w_gate_EDF)):
        pairs = [(t, slot) for t, row in enumerate(idx_TK.tolist()) for slot, i in enumerate(row) if i == e]
        out = _expert(torch.stack([x_TD[t] for t, _ in pairs]), w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        for (t, slot), out_D in zip(pairs, out, strict=True):
            y_TD[t] += (weights_TK[t, slot] * out_D).to(y_TD.dtype)
    return y_TD


@caught_by("empty_experts")
def experts_counted_from_the_indices(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """How many experts are there: as many as somebody chose, or as many as there are weights?"""
    y_TD = torch.zeros_like(x_TD)
    for e in range(len(idx_TK.unique())):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y_TD[token] += (weights_TK[token, slot, None] * out).to(y_TD.dtype)
    return y_TD


@caught_by("order")
def outputs_left_in_the_experts_order(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The rows of expert 0 come first in your result. Whose rows does the caller expect there?"""
    outs = [out for _, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)]
    return torch.cat(outs).reshape(*idx_TK.shape, -1).sum(dim=1)


@caught_by("gradients")
def gate_weights_detached(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Through what does the task reach the router, if not through the weights?"""
    y_TD = torch.zeros_like(x_TD)
    for token, out in _weighted(x_TD, weights_TK.detach(), idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD = y_TD.index_add(0, token, out)
    return y_TD


@caught_by("gradients")
def experts_without_gradient(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The router can learn here. Can the experts, and the layers below?"""
    y_TD = torch.zeros_like(x_TD)
    for e in range(len(w_gate_EDF)):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        with torch.no_grad():
            out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y_TD = y_TD.index_add(0, token, (weights_TK[token, slot, None] * out).to(x_TD.dtype))
    return y_TD


@caught_by("mixed_dtypes", form=True)
def float32_comes_back(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Which dtype do the layers above expect when the tokens are bfloat16?"""
    y_TD = torch.zeros(x_TD.shape, dtype=torch.promote_types(x_TD.dtype, weights_TK.dtype))
    for e in range(len(w_gate_EDF)):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y_TD[token] += weights_TK[token, slot, None] * out
    return y_TD


@caught_by("mixed_dtypes", form=True)
def float32_added_to_bfloat16(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """index_add wants both tensors in one dtype. Which dtype has a float32 weight times a bfloat16 output?"""
    y_TD = torch.zeros_like(x_TD)
    for e in range(len(w_gate_EDF)):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)
        out = _expert(x_TD[token], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        y_TD = y_TD.index_add(0, token, weights_TK[token, slot, None] * out)
    return y_TD


@caught_by("other_inputs")
def outputs_added_to_the_tokens(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """`y_TD = x_TD` makes no copy. Which tensor do you add to, and what do the later experts read?"""
    y_TD = x_TD
    for token, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD


@caught_by("other_inputs", form=True)
def float64_rounded_to_float32(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """What does float() do to a float64 tensor?"""
    floats = (x_TD.float(), weights_TK.float(), idx_TK, w_gate_EDF.float(), w_up_EDF.float())
    y_TD = torch.zeros(x_TD.shape)
    for token, out in _weighted(*floats, w_down_EFD.float()):
        y_TD[token] += out
    return y_TD.to(x_TD.dtype)


@caught_by("other_inputs", form=True)
def result_always_float32(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Which dtype has torch.zeros when you name none?"""
    y_TD = torch.zeros(x_TD.shape)
    for token, out in _weighted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
        y_TD[token] += out
    return y_TD
