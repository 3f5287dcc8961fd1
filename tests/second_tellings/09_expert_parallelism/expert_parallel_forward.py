import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_to_all_single

from moe_course.moe.experts import swiglu_ffn


def _move(rows, send, recv, group):
    out = torch.empty(sum(recv), rows.shape[1], dtype=rows.dtype)
    return all_to_all_single(out, rows.contiguous(), recv, send, group=group)


def _parts(x_TD, idx_TK, here, num_experts, group):
    size = dist.get_world_size(group)
    order = idx_TK.flatten().argsort(stable=True)
    table = torch.bincount(idx_TK.flatten(), minlength=num_experts).view(size, here)
    theirs = torch.zeros_like(table)
    dist.all_to_all_single(theirs, table, group=group)
    return order, x_TD[order // idx_TK.shape[1]], table, theirs


def _summed(back, order, weights_TK, width):
    rows = back[order.argsort()].reshape(*weights_TK.shape, width)
    return (rows * weights_TK.unsqueeze(-1)).sum(1)


def _blocks(x, theirs, experts):
    """Each (sender, expert) block through its expert, in place: no order to undo."""
    here = theirs.shape[1]
    cut = x.split(theirs.flatten().tolist())
    return torch.cat([swiglu_ffn(block, *(w[i % here] for w in experts)) for i, block in enumerate(cut)])


def _run(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute=_blocks, out=_move, home=_move):
    order, rows, table, theirs = _parts(x_TD, idx_TK, len(experts[0]), num_experts, group)
    send, recv = table.sum(1).tolist(), theirs.sum(1).tolist()
    y = compute(out(rows, send, recv, group), theirs, experts)
    return _summed(home(y, recv, send, group), order, weights_TK, x_TD.shape[1])


def nothing_travels(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    out = torch.zeros_like(x_TD)
    for k in range(idx_TK.shape[1]):
        for e in range(len(local_w_gate)):
            mask = (idx_TK[:, k] % len(local_w_gate) == e).nonzero().flatten()
            y = swiglu_ffn(x_TD[mask], local_w_gate[e], local_w_up[e], local_w_down[e])
            out = out.index_add(0, mask, weights_TK[mask, k, None] * y)
    return out


def weights_forgotten(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    ones = weights_TK * 0 + 1
    return _run(x_TD, ones, idx_TK, (local_w_gate, local_w_up, local_w_down), num_experts, group)


def weights_scaled_to_one(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    normed = torch.nn.functional.normalize(weights_TK, p=1, dim=1)
    return _run(x_TD, normed, idx_TK, (local_w_gate, local_w_up, local_w_down), num_experts, group)


def tokens_added(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    y_TD = _run(x_TD, weights_TK, idx_TK, (local_w_gate, local_w_up, local_w_down), num_experts, group)
    return y_TD + x_TD


def grouped_by_sender(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    def compute(x, theirs, experts):
        cut = x.split(theirs.sum(0).tolist())  # as if the rows stood by expert
        return torch.cat([swiglu_ffn(rows, *(w[e] for w in experts)) for e, rows in enumerate(cut)])

    experts = (local_w_gate, local_w_up, local_w_down)
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute)


def order_not_undone(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    def compute(x, theirs, experts):
        here = theirs.shape[1]
        cut = x.split(theirs.flatten().tolist())
        done = [swiglu_ffn(torch.cat(cut[e::here]), *(w[e] for w in experts)) for e in range(here)]
        return torch.cat(done)

    experts = (local_w_gate, local_w_up, local_w_down)
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute)


def first_local_expert_only(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    def compute(x, theirs, experts):
        return swiglu_ffn(x, *(w[0] for w in experts))

    experts = (local_w_gate, local_w_up, local_w_down)
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute)


def tokens_without_gradient(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    experts = (local_w_gate, local_w_up, local_w_down)
    return _run(x_TD.detach(), weights_TK, idx_TK, experts, num_experts, group)


def experts_without_gradient(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    experts = [w.detach() for w in (local_w_gate, local_w_up, local_w_down)]
    home = lambda rows, *counts: _move(rows.detach(), *counts)  # noqa: E731
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, group, home=home)


def expert_gradients_averaged(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    experts = [
        w.detach() + (w - w.detach()) / dist.get_world_size(group)
        for w in (local_w_gate, local_w_up, local_w_down)
    ]
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, group)


def idle_experts_without_gradient(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    def compute(x, theirs, experts):
        return x if x.shape[0] == 0 else _blocks(x, theirs, experts)

    experts = (local_w_gate, local_w_up, local_w_down)
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute)


def absent_without_tokens(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    if x_TD.numel() == 0:
        return torch.zeros_like(x_TD)
    return _run(x_TD, weights_TK, idx_TK, (local_w_gate, local_w_up, local_w_down), num_experts, group)


def all_the_world(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    experts = (local_w_gate, local_w_up, local_w_down)
    return _run(x_TD, weights_TK, idx_TK, experts, num_experts, dist.group.WORLD)
