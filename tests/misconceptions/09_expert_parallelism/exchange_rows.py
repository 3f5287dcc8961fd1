import torch
import torch.distributed as dist

from moe_course.grading.judge.catalogue import caught_by


def _sent(rows, send, recv, group):
    room = rows.new_empty(sum(recv), rows.shape[1])
    dist.all_to_all_single(room, rows.contiguous(), recv, send, group=group)
    return room


def _lists(send_R, recv_R):
    return [int(n) for n in send_R], [int(n) for n in recv_R]


def _with(forward, backward):
    """A differentiable exchange of these two functions of rows."""

    class Exchange(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows):
            return forward(rows)

        @staticmethod
        def backward(ctx, grad):
            return backward(grad)

    return Exchange.apply


def _right(rows_ND, send, recv, group):
    return _with(lambda rows: _sent(rows, send, recv, group), lambda grad: _sent(grad, recv, send, group))(
        rows_ND
    )


@caught_by("arrive")
def counts_exchanged(rows_ND, send_R, recv_R, group):
    """Which list says how your own rows are cut, and which says what arrives?"""
    send, recv = _lists(send_R, recv_R)
    return _right(rows_ND, recv, send, group)


@caught_by("arrive")
def equal_pieces(rows_ND, send_R, recv_R, group):
    """Without the counts every rank gets an equal piece. Are the pieces equal?"""

    def halves(rows):
        room = torch.empty_like(rows)
        dist.all_to_all_single(room, rows.contiguous(), group=group)
        return room

    return _with(halves, halves)(rows_ND)


@caught_by("arrive")
def everybody_gets_everything(rows_ND, send_R, recv_R, group):
    """Does rank 1 need the rows that rank 0 has for rank 2?"""
    parts = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, rows_ND.detach(), group=group)
    sizes = [len(part) for part in parts]
    place = dist.get_rank(group)
    return _with(lambda rows: torch.cat(parts), lambda grad: grad.split(sizes)[place])(rows_ND)


@caught_by("arrive")
def own_rows_first(rows_ND, send_R, recv_R, group):
    """In which order does the next step expect the senders: yours first, or by rank?"""
    send, recv = _lists(send_R, recv_R)
    place = dist.get_rank(group)
    parts = list(_right(rows_ND, send, recv, group).split(recv))
    return torch.cat([parts[place], *parts[:place], *parts[place + 1 :]])


@caught_by("zeros")
def absent_without_rows(rows_ND, send_R, recv_R, group):
    """This rank sends nothing. Are there rows for it, and who waits until it takes them?"""
    send, recv = _lists(send_R, recv_R)
    return _right(rows_ND, send, recv, group) if sum(send) else rows_ND.new_empty(sum(recv), rows_ND.shape[1])


@caught_by("gradients")
def no_gradient(rows_ND, send_R, recv_R, group):
    """`all_to_all_single` is unknown to autograd. How does a gradient find its way back?"""
    return _sent(rows_ND.detach(), *_lists(send_R, recv_R), group)


@caught_by("gradients")
def gradient_sent_onwards(rows_ND, send_R, recv_R, group):
    """Backward, you send as many rows as forward. How many gradients does this rank hold, and for whom?"""
    send, recv = _lists(send_R, recv_R)
    return _with(lambda rows: _sent(rows, send, recv, group), lambda grad: _sent(grad, send, recv, group))(
        rows_ND
    )


@caught_by("gradients")
def gradient_of_zeros(rows_ND, send_R, recv_R, group):
    """A rank that gets no gradient back learns nothing. Is zero what the other ranks found?"""
    send, recv = _lists(send_R, recv_R)
    zeros = torch.zeros_like(rows_ND)
    return _with(lambda rows: _sent(rows, send, recv, group), lambda grad: zeros)(rows_ND)


@caught_by("gradients")
def gradient_averaged(rows_ND, send_R, recv_R, group):
    """Each row went to one rank. Over what do you take a mean?"""
    send, recv = _lists(send_R, recv_R)
    size = dist.get_world_size(group)
    back = lambda grad: _sent(grad, recv, send, group) / size  # noqa: E731
    return _with(lambda rows: _sent(rows, send, recv, group), back)(rows_ND)


@caught_by("subgroup")
def all_the_world(rows_ND, send_R, recv_R, group):
    """Which ranks take part if nobody says so, and are they all there?"""
    return _right(rows_ND, *_lists(send_R, recv_R), None)


@caught_by("other_inputs", form=True)
def room_in_float32(rows_ND, send_R, recv_R, group):
    """Rows of bfloat16 or float64 arrive. Of which dtype is the room that you made?"""
    send, recv = _lists(send_R, recv_R)

    def sent(rows, out, back):
        room = torch.empty(sum(back), rows.shape[1])
        dist.all_to_all_single(room, rows.contiguous(), back, out, group=group)
        return room

    return _with(lambda rows: sent(rows, send, recv), lambda grad: sent(grad, recv, send))(rows_ND)


@caught_by("other_inputs", form=True)
def counts_in_lists_only(rows_ND, send_R, recv_R, group):
    """Counts may come as tensors. What does `all_to_all_single` accept?"""
    if not isinstance(send_R, list) or not isinstance(recv_R, list):
        raise TypeError("lists of ints, please")
    return _right(rows_ND, send_R, recv_R, group)
