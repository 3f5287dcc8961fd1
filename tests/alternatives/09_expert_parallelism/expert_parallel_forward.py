import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_to_all_single

from moe_course.moe.experts import swiglu_ffn


def _swap(rows, send, recv, group):
    room = torch.empty(sum(recv), *rows.shape[1:], dtype=rows.dtype)
    return all_to_all_single(room, rows.contiguous(), recv, send, group=group)


def expert_numbers_travel_too(
    x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group
):
    """Each row comes with the number of its expert, and every expert picks its own rows."""
    size, here, (tokens, slots) = dist.get_world_size(group), len(local_w_gate), idx_TK.shape
    token_N, expert_N = torch.arange(tokens).repeat_interleave(slots), idx_TK.flatten()
    order_N = (expert_N // here).argsort(stable=True)
    send_R = torch.bincount(expert_N // here, minlength=size)
    recv_R = torch.empty_like(send_R)
    dist.all_to_all_single(recv_R, send_R, group=group)
    send, recv = send_R.tolist(), recv_R.tolist()
    number_M = torch.empty(sum(recv), dtype=torch.int64)
    dist.all_to_all_single(number_M, expert_N[order_N].contiguous(), recv, send, group=group)
    x_MD = _swap(x_TD[token_N[order_N]], send, recv, group)
    out_MD = torch.zeros_like(x_MD)
    for e in range(here):
        mine = (number_M % here == e).nonzero()[:, 0]
        rows = swiglu_ffn(x_MD[mine], local_w_gate[e], local_w_up[e], local_w_down[e])
        out_MD = out_MD.index_add(0, mine, rows)
    y_ND = _swap(out_MD, recv, send, group) * weights_TK.flatten()[order_N, None]
    return torch.zeros_like(x_TD).index_add(0, token_N[order_N], y_ND)


def block_by_block(x_TD, weights_TK, idx_TK, local_w_gate, local_w_up, local_w_down, num_experts, group):
    """No sort of single rows: the blocks of (sender, expert) are put into another order."""
    size, here, slots = dist.get_world_size(group), len(local_w_gate), idx_TK.shape[1]
    order_N = idx_TK.flatten().argsort(stable=True)
    send_RE = torch.stack([(idx_TK == e).sum() for e in range(num_experts)]).view(size, here)
    recv_RE = torch.empty_like(send_RE)
    dist.all_to_all_single(recv_RE, send_RE, group=group)
    send, recv = send_RE.sum(1).tolist(), recv_RE.sum(1).tolist()
    blocks = _swap(x_TD[order_N // slots], send, recv, group).split(recv_RE.flatten().tolist())
    done = [
        swiglu_ffn(block, local_w_gate[i % here], local_w_up[i % here], local_w_down[i % here])
        for i, block in enumerate(blocks)
    ]
    y_ND = _swap(torch.cat(done), recv, send, group)
    y_TKD = y_ND[order_N.argsort()].view(*idx_TK.shape, x_TD.shape[1])
    return torch.einsum("tk,tkd->td", weights_TK, y_TKD)
