import torch
import torch.distributed as dist


class _Swap(torch.autograd.Function):
    """Forward with one pair of counts, backward with another; `change` is what happens to a gradient first."""

    @staticmethod
    def forward(ctx, rows, there, back, group, change):
        ctx.back, ctx.group, ctx.change = back, group, change
        return _Swap.move(rows, there, group)

    @staticmethod
    def backward(ctx, grad):
        return ctx.change(_Swap.move(grad, ctx.back, ctx.group)), None, None, None, None

    @staticmethod
    def move(rows, counts, group):
        out = torch.zeros(sum(counts[1]), rows.size(1), dtype=rows.dtype)
        dist.all_to_all_single(out, rows.contiguous(), counts[1], counts[0], group=group)
        return out


def _same(grad):
    return grad


def _counts(send_R, recv_R):
    return torch.as_tensor(send_R).tolist(), torch.as_tensor(recv_R).tolist()


def counts_exchanged(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    return _Swap.apply(rows_ND, (recv, send), (send, recv), group, _same)


def everybody_gets_everything(rows_ND, send_R, recv_R, group):
    others = [None for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(others, rows_ND.detach().clone(), group=group)
    others[dist.get_rank(group)] = rows_ND
    return torch.cat(others, dim=0)


def own_rows_first(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    pieces = _Swap.apply(rows_ND, (send, recv), (recv, send), group, _same).split(recv)
    me = dist.get_rank(group)
    order = sorted(range(len(pieces)), key=lambda r: (r != me, r))
    return torch.cat([pieces[r] for r in order])


def absent_without_rows(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    if rows_ND.shape[0] == 0:
        return torch.zeros(sum(recv), rows_ND.shape[1], dtype=rows_ND.dtype)
    return _Swap.apply(rows_ND, (send, recv), (recv, send), group, _same)


def no_gradient(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    with torch.no_grad():
        return _Swap.move(rows_ND, (send, recv), group)


def gradient_sent_onwards(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    return _Swap.apply(rows_ND, (send, recv), (send, recv), group, _same)


def gradient_of_zeros(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    return _Swap.apply(rows_ND, (send, recv), (recv, send), group, lambda grad: 0 * grad)


def gradient_averaged(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    return _Swap.apply(rows_ND, (send, recv), (recv, send), group, lambda grad: grad / len(send))


def all_the_world(rows_ND, send_R, recv_R, group):
    send, recv = _counts(send_R, recv_R)
    return _Swap.apply(rows_ND, (send, recv), (recv, send), dist.group.WORLD, _same)


def counts_in_lists_only(rows_ND, send_R, recv_R, group):
    if torch.is_tensor(send_R):
        raise TypeError("send_R must be a list")
    return _Swap.apply(rows_ND, (send_R, recv_R), (recv_R, send_R), group, _same)
