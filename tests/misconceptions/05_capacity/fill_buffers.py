import torch

from moe_course.grading.judge.catalogue import caught_by


def _kept(idx_TK, pos_TK, capacity):
    token, slot = torch.where(pos_TK < capacity)
    return token, idx_TK[token, slot], pos_TK[token, slot]


def _empty(x_TD, num_experts, capacity):
    return x_TD.new_zeros(num_experts, capacity, x_TD.shape[1])


@caught_by("places")
def capacity_before_experts(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Which axis of the buffer comes first, the expert or the slot?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    return _empty(x_TD, capacity, num_experts).index_put((place, expert), x_TD[token])


@caught_by("places")
def expert_and_place_mixed_up(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """The flat slot of expert e, place c: how many slots lie before expert e's first?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    flat = (expert + place * num_experts) % (num_experts * capacity)
    buf = _empty(x_TD, num_experts, capacity).flatten(0, 1)
    return buf.index_put((flat,), x_TD[token]).view(num_experts, capacity, -1)


@caught_by("places")
def slots_before_tokens(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Is n = t·K + k, or k·T + t?"""
    n = torch.arange(idx_TK.numel()).view_as(idx_TK)
    token, slot = torch.where(pos_TK < capacity)
    where = (idx_TK[token, slot], pos_TK[token, slot])
    return _empty(x_TD, num_experts, capacity).index_put(where, x_TD[(n % len(x_TD))[token, slot]])


@caught_by("places")
def first_choices_only(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """What happens to the second choices?"""
    token, expert, place = _kept(idx_TK[:, :1], pos_TK[:, :1], capacity)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), x_TD[token])


@caught_by("places")
def packed_in_token_order(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """You fill each buffer in token order. What is pos_TK for?"""
    buffers = []
    for e in range(num_experts):
        rows = x_TD[torch.where(idx_TK == e)[0]][:capacity]
        buffers.append(torch.cat([rows, x_TD.new_zeros(capacity - len(rows), x_TD.shape[1])]))
    return torch.stack(buffers)


@caught_by("places")
def slots_counted_from_one(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Position 0 is the first in the queue. Which slot of the buffer is that?"""
    token, expert, place = _kept(idx_TK, pos_TK + 1, capacity)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), x_TD[token])


@caught_by("drops")
def last_slot_overwritten(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """clamp() sends everybody who is late to the last slot. Who stood there?"""
    buf_ECD = _empty(x_TD, num_experts, capacity)
    places = pos_TK.clamp(max=capacity - 1)
    for t in range(len(idx_TK)):
        for k in range(idx_TK.shape[1]):
            buf_ECD[idx_TK[t, k], places[t, k]] = x_TD[t]
    return buf_ECD


@caught_by("drops")
def wrapped_around(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Place C becomes slot 0 again. Who stood there?"""
    buf_ECD = _empty(x_TD, num_experts, capacity)
    for late in (False, True):
        token, slot = torch.where((pos_TK >= capacity) == late)
        buf_ECD = buf_ECD.index_put((idx_TK[token, slot], pos_TK[token, slot] % capacity), x_TD[token])
    return buf_ECD


@caught_by("drops")
def wrapped_around__in_token_order(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Place C becomes slot 0 again. Who stood there?"""
    buf_ECD = _empty(x_TD, num_experts, capacity)
    for token, chosen in enumerate(idx_TK.tolist()):
        for slot, expert in enumerate(chosen):
            place = idx_TK.new_tensor([expert]), pos_TK[token, slot][None] % capacity
            buf_ECD = buf_ECD.index_put(place, x_TD[token])
    return buf_ECD


@caught_by("drops")
def spills_into_the_next_expert(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Slot e·C + C: whose slot is that?"""
    buf = x_TD.new_zeros(num_experts * capacity, x_TD.shape[1])
    flat_N = (idx_TK * capacity + pos_TK).flatten()
    fits_N = flat_N < len(buf)
    rows = x_TD.repeat_interleave(idx_TK.shape[1], 0)
    buf = buf.index_add(0, flat_N[fits_N], rows[fits_N])
    return buf.view(num_experts, capacity, -1)


@caught_by("drops")
def added_up_in_the_last_slot(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Those who are late are added to the last row. What does the expert see there?"""
    buf = x_TD.new_zeros(num_experts * capacity, x_TD.shape[1])
    flat_N = (idx_TK * capacity + pos_TK.clamp(max=capacity - 1)).flatten()
    return buf.index_add(0, flat_N, x_TD.repeat_interleave(idx_TK.shape[1], 0)).view(
        num_experts, capacity, -1
    )


@caught_by("drops")
def one_slot_left_free(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """With C slots, which is the last place that still fits?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity - 1)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), x_TD[token])


@caught_by("drops")
def late_places_not_caught(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """A buffer has slots 0 to C−1. What does your code do with place C?"""
    buf_ECD = _empty(x_TD, num_experts, capacity)
    return buf_ECD.index_put((idx_TK, pos_TK), x_TD[:, None].expand(-1, idx_TK.shape[1], -1))


@caught_by("drops")
def whole_token_dropped(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """One of a token's choices is full. Must the other one go too?"""
    kept_T1 = (pos_TK < capacity).all(1, keepdim=True)
    token, expert, place = _kept(idx_TK, pos_TK.where(kept_T1, capacity), capacity)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), x_TD[token])


@caught_by("empty_slots")
def padded_with_token_0(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Your table of tokens starts full of zeros. Zero is a token: which one?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    who_EC = torch.zeros(num_experts, capacity, dtype=torch.long).index_put((expert, place), token)
    return x_TD[who_EC]


@caught_by("empty_slots")
def padded_with_nan(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """What will an expert make of an empty slot that holds nan, and what will its weights' gradients be?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    buf_ECD = torch.full((num_experts, capacity, x_TD.shape[1]), float("nan"), dtype=x_TD.dtype)
    return buf_ECD.index_put((expert, place), x_TD[token])


@caught_by("empty_slots")
def padded_with_minus_one(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """A mark for emptiness: does the expert know that −1 means nobody?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    return (_empty(x_TD, num_experts, capacity) - 1).index_put((expert, place), x_TD[token])


@caught_by("gradients")
def rows_detached(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """How does the layer before learn, if no gradient comes back through the buffers?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), x_TD.detach()[token])


@caught_by("gradients")
def rebuilt_from_numbers(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Your buffers are built from Python lists. Do lists carry gradients?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    rows = torch.tensor(x_TD.tolist(), dtype=x_TD.dtype, requires_grad=True)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), rows[token])


@caught_by("other_inputs", form=True)
def always_float32(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """Which dtype should the buffers of bfloat16 tokens have?"""
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    buf_ECD = torch.zeros(num_experts, capacity, x_TD.shape[1])
    return buf_ECD.index_put((expert, place), x_TD[token].float())


@caught_by("other_inputs", form=True)
def positions_clamped_in_place(x_TD, idx_TK, pos_TK, num_experts, capacity):
    """read_buffers needs the positions too. What do they say after your clamp_()?"""
    pos_TK.clamp_(max=capacity)
    token, expert, place = _kept(idx_TK, pos_TK, capacity)
    return _empty(x_TD, num_experts, capacity).index_put((expert, place), x_TD[token])
