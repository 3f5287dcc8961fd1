import torch
import torch.distributed as dist

from moe_course.grading.judge.catalogue import caught_by
from moe_course.moe.dispatch import combine, gather_tokens, grouped_ffn, plan_dispatch


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, send, recv, group):
        ctx.counts = recv, send, group
        room = rows.new_empty(sum(recv), rows.shape[1])
        dist.all_to_all_single(room, rows.contiguous(), recv, send, group=group)
        return room

    @staticmethod
    def backward(ctx, grad):
        return _Exchange.apply(grad, *ctx.counts), None, None, None


def _layer(
    x_TD,
    weights_TK,
    idx_TK,
    experts,
    num_experts,
    group,
    *,
    dispatched=_Exchange.apply,
    returned=_Exchange.apply,
    compute=grouped_ffn,
    sort=True,
    undo=True,
):
    """The right answer, step by step; each step can be replaced by a wrong one."""
    size, here = dist.get_world_size(group), len(experts[0])
    order_N, counts_E = plan_dispatch(idx_TK, num_experts)
    send_RE = counts_E.view(size, here)
    recv_RE = torch.empty_like(send_RE)
    dist.all_to_all_single(recv_RE, send_RE, group=group)
    send, recv = send_RE.sum(1).tolist(), recv_RE.sum(1).tolist()
    x_MD = dispatched(gather_tokens(x_TD, order_N, idx_TK.shape[1]), send, recv, group)
    order_M = torch.arange(here).repeat(size).repeat_interleave(recv_RE.flatten()).argsort(stable=True)
    out_MD = compute(x_MD[order_M] if sort else x_MD, recv_RE.sum(0), *experts)
    back_ND = returned(out_MD[order_M.argsort()] if undo else out_MD, recv, send, group)
    return combine(back_ND, order_N, weights_TK)


@caught_by("one_expert_each")
def nothing_travels(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Every rank computes its own tokens with its own experts. Where are the experts that it does not hold?"""
    local_TK = idx_TK % len(local_w_gate)
    order_N, counts_E = plan_dispatch(local_TK, len(local_w_gate))
    x_ND = gather_tokens(x_TD, order_N, idx_TK.shape[1])
    return combine(grouped_ffn(x_ND, counts_E, local_w_gate, local_w_up, local_w_down), order_N, weights_TK)


@caught_by("one_expert_each")
def weights_forgotten(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Where do the gate weights come in?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, torch.ones_like(weights_TK), idx_TK, experts, num_experts, group)


@caught_by("one_expert_each")
def weights_scaled_to_one(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """The gate has normalised its weights, or has not. Is it this function's place to do it?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, weights_TK / weights_TK.sum(1, keepdim=True), idx_TK, experts, num_experts, group)


@caught_by("one_expert_each")
def tokens_added(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Is the residual a part of this layer?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    return x_TD + _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group)


@caught_by("several")
def grouped_by_sender(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Rows arrive grouped by sender. Which rows does `grouped_ffn` take for those of its first expert?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, sort=False, undo=False)


@caught_by("several")
def order_not_undone(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Results go back in the order of the experts. In which order does the sender expect them?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, undo=False)


@caught_by("several")
def first_local_expert_only(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """A rank holds several experts. Which of them computes in your code?"""

    def compute(x_MD, counts_E, *experts):
        counts_1 = counts_E.sum()[None]
        return grouped_ffn(x_MD, counts_1, *(w[:1] for w in experts))

    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute=compute)


@caught_by("gradients")
def tokens_without_gradient(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """The loss depends on x through every expert. Which step on the way out cuts the gradient off?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    cut = lambda rows, *counts: _Exchange.apply(rows.detach(), *counts)  # noqa: E731
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, dispatched=cut)


@caught_by("gradients")
def experts_without_gradient(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """The results come back without a history. How does the loss reach the experts that made them?"""
    experts = (local_w_gate, local_w_up, local_w_down)
    cut = lambda rows, *counts: _Exchange.apply(rows.detach(), *counts)  # noqa: E731
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, returned=cut)


@caught_by("gradients")
def expert_gradients_averaged(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """An expert hears of the tokens of all ranks. Is its gradient here their sum, or their mean?"""
    size = dist.get_world_size(group)
    experts = [w / size + (w - w / size).detach() for w in (local_w_gate, local_w_up, local_w_down)]
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group)


@caught_by("idle")
def idle_experts_without_gradient(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """No row arrived, so nothing is computed. What does an optimizer do with a gradient of None?"""

    def compute(x_MD, counts_E, *experts):
        return grouped_ffn(x_MD, counts_E, *experts) if len(x_MD) else x_MD

    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute=compute)


@caught_by("idle")
def absent_without_tokens(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """This rank has no token. Who computes what the others sent to its experts?"""
    if not len(x_TD):
        return x_TD
    return _layer(x_TD, weights_TK, idx_TK, (local_w_gate, local_w_up, local_w_down), num_experts, group)


@caught_by("subgroup")
def all_the_world(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Which ranks take part if nobody says so, and are they all there?"""
    return _layer(x_TD, weights_TK, idx_TK, (local_w_gate, local_w_up, local_w_down), num_experts, None)


@caught_by("other_inputs", form=True)
def computed_in_float32(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """Tokens and weights are float64. Why does the result have the digits of float32?"""

    def compute(x_MD, counts_E, *experts):
        return grouped_ffn(x_MD.float(), counts_E, *(w.float() for w in experts)).to(x_MD.dtype)

    experts = (local_w_gate, local_w_up, local_w_down)
    return _layer(x_TD, weights_TK, idx_TK, experts, num_experts, group, compute=compute)
