import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _expert(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate) * (x @ w_up)) @ w_down


def _groups(x_ND, counts_E, *weights):
    """The rows and the weights of one expert after another."""
    return zip(x_ND.split(counts_E.tolist()), *weights, strict=True)


@caught_by("one_expert")
def gate_and_up_exchanged(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Two matrices of one shape. Which of them stands inside silu?"""
    parts = _groups(x_ND, counts_E, w_up_EDF, w_gate_EDF, w_down_EFD)
    return torch.cat([_expert(*part) for part in parts])


@caught_by("one_expert")
def no_silu(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """You multiply x·w_gate and x·w_up as they are. Which of the two should pass through silu?"""
    parts = _groups(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return torch.cat([((x @ gate) * (x @ up)) @ down for x, gate, up, down in parts])


@caught_by("one_expert")
def relu_for_silu(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Which of the two lets a little of the negative side through, relu or silu?"""
    parts = _groups(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return torch.cat([(F.relu(x @ gate) * (x @ up)) @ down for x, gate, up, down in parts])


@caught_by("one_expert")
def residual_added(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Who adds the residual, the expert or the block around the layer?"""
    parts = _groups(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return x_ND + torch.cat([_expert(*part) for part in parts])


@caught_by("groups")
def groups_of_equal_size(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """You divide the rows evenly among the experts. Is that what counts_E says?"""
    chunks = x_ND.tensor_split(len(counts_E))
    parts = zip(chunks, w_gate_EDF, w_up_EDF, w_down_EFD, strict=True)
    return torch.cat([_expert(*part) for part in parts])


@caught_by("groups")
def first_expert_for_all(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Whose weights meet the rows of expert 1?"""
    return _expert(x_ND, w_gate_EDF[0], w_up_EDF[0], w_down_EFD[0])


@caught_by("groups")
def counts_taken_for_starts(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """counts_E says how many rows a group has. How many rows stand before it?"""
    y_ND = torch.zeros_like(x_ND)
    for e, count in enumerate(counts_E.tolist()):
        rows = slice(0, count) if e == 0 else slice(counts_E[e - 1], counts_E[e - 1] + count)
        y_ND[rows] = _expert(x_ND[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
    return y_ND


@caught_by("groups")
def last_group_forgotten(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """E groups have E − 1 borders between them. Which group does your loop never reach?"""
    y_ND = torch.zeros_like(x_ND)
    ends = counts_E.cumsum(0).tolist()
    for e in range(len(ends) - 1):
        rows = slice(ends[e] - int(counts_E[e]), ends[e])
        y_ND[rows] = _expert(x_ND[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
    return y_ND


@caught_by("groups")
def one_row_short(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """A slice leaves out its end. Which row of each group have you left out besides?"""
    y_ND = torch.zeros_like(x_ND)
    for e, end in enumerate(counts_E.cumsum(0).tolist()):
        rows = slice(end - int(counts_E[e]), max(end - 1, 0))
        y_ND[rows] = _expert(x_ND[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
    return y_ND


@caught_by("groups")
def experts_added_up(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Every row passes through every expert here. What are the groups for?"""
    experts = zip(w_gate_EDF, w_up_EDF, w_down_EFD, strict=True)
    return sum(_expert(x_ND, *expert) for expert in experts)


@caught_by("groups")
def groups_from_the_back(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Expert 0 ran first. Where in the result do its rows stand?"""
    parts = _groups(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return torch.cat([_expert(*part) for part in parts][::-1])


@caught_by("empty_experts")
def empty_experts_numbered_away(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """You drop the zeros from counts_E. Which weights does the group behind a zero meet then?"""
    groups = x_ND.split([count for count in counts_E.tolist() if count])
    parts = zip(groups, w_gate_EDF, w_up_EDF, w_down_EFD, strict=False)
    return torch.cat([_expert(*part) for part in parts])


@caught_by("empty_experts")
def stops_at_an_empty_expert(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Expert 1 has no rows. What about expert 2?"""
    y_ND, start = torch.zeros_like(x_ND), 0
    for e, count in enumerate(counts_E.tolist()):
        if count == 0:
            break
        rows = slice(start, start + count)
        y_ND[rows] = _expert(x_ND[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        start += count
    return y_ND


@caught_by("empty_experts")
def empty_experts_refused(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Is an expert that nobody chose an error, or the usual case?"""
    if (counts_E == 0).any():
        raise ValueError("every expert needs a row")
    parts = _groups(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return torch.cat([_expert(*part) for part in parts])


@caught_by("empty_experts")
def one_row_at_least(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """An expert without rows takes one of its neighbour's here. Who needs that row?"""
    y_ND, start = torch.zeros_like(x_ND), 0
    for e, count in enumerate(counts_E.tolist()):
        rows = slice(start, start + max(count, 1))
        y_ND[rows] = _expert(x_ND[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        start = min(start + max(count, 1), len(x_ND))
    return y_ND


@caught_by("gradients")
def experts_without_gradient(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The layers below can learn here. Can the experts?"""
    fixed = (w.detach() for w in (w_gate_EDF, w_up_EDF, w_down_EFD))
    return torch.cat([_expert(*part) for part in _groups(x_ND, counts_E, *fixed)])


@caught_by("gradients")
def no_graph_at_all(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """What can still learn from a result computed under no_grad()?"""
    with torch.no_grad():
        parts = _groups(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
        return torch.cat([_expert(*part) for part in parts])


@caught_by("gradients")
def rows_detached(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The experts can learn here. Can the layers below them?"""
    parts = _groups(x_ND.detach(), counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return torch.cat([_expert(*part) for part in parts])


@caught_by("other_inputs", form=True)
def always_float32(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """Which dtype has torch.zeros when you name none?"""
    y_ND, start = torch.zeros(x_ND.shape), 0
    for e, count in enumerate(counts_E.tolist()):
        rows = slice(start, start + count)
        y_ND[rows] = _expert(x_ND[rows], w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e]).float()
        start += count
    return y_ND


@caught_by("other_inputs", form=True)
def written_over_the_rows(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """`y_ND = x_ND` makes no copy. Whose rows do you write over?"""
    y_ND, start = x_ND if not x_ND.requires_grad else x_ND.clone(), 0
    for e, count in enumerate(counts_E.tolist()):
        rows = slice(start, start + count)
        y_ND[rows] = _expert(y_ND[rows].clone(), w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])
        start += count
    return y_ND


@caught_by("other_inputs", form=True)
def float64_rounded_to_float32(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD):
    """What does float() do to a float64 tensor?"""
    floats = (w.float() for w in (w_gate_EDF, w_up_EDF, w_down_EFD))
    parts = _groups(x_ND.float(), counts_E, *floats)
    return torch.cat([_expert(*part) for part in parts]).to(x_ND.dtype)
