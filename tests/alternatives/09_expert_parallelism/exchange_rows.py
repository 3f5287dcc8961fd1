import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_to_all_single


def of_torch(rows_ND, send_R, recv_R, group):
    send, recv = torch.as_tensor(send_R).tolist(), torch.as_tensor(recv_R).tolist()
    room = torch.empty(sum(recv), rows_ND.shape[1], dtype=rows_ND.dtype)
    return all_to_all_single(room, rows_ND.contiguous(), recv, send, group=group)


class _Both(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, send, recv, group):
        ctx.send, ctx.recv, ctx.group = send, recv, group
        return _point_to_point(rows, send, recv, group)

    @staticmethod
    def backward(ctx, grad):
        return _point_to_point(grad, ctx.recv, ctx.send, ctx.group), None, None, None


def _point_to_point(rows, send, recv, group):
    """Messages from one rank to another; without rows there is no message."""
    me, parts = dist.get_rank(group), [rows.new_empty(n, rows.shape[1]) for n in recv]
    pieces, waiting = [piece.contiguous() for piece in rows.split(send)], []
    for other in range(len(send)):
        name = dist.get_global_rank(group, other)
        if other != me and send[other]:
            waiting.append(dist.isend(pieces[other], name, group=group))
        if other != me and recv[other]:
            waiting.append(dist.irecv(parts[other], name, group=group))
    for work in waiting:
        work.wait()
    parts[me] = pieces[me]
    return torch.cat(parts)


def messages(rows_ND, send_R, recv_R, group):
    return _Both.apply(rows_ND, [int(n) for n in send_R], [int(n) for n in recv_R], group)
