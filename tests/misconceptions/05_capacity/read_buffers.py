import torch

from moe_course.grading.judge.catalogue import caught_by


def _rows(buf_ECD, idx_TK, pos_TK):
    """Rows (T, K, D) of those who were kept, zeros for the others; and who was kept."""
    kept_TK = pos_TK < buf_ECD.shape[1]
    rows_TKD = buf_ECD[idx_TK, pos_TK.clamp(max=buf_ECD.shape[1] - 1)]
    return torch.where(kept_TK[..., None], rows_TKD, torch.zeros((), dtype=buf_ECD.dtype)), kept_TK


def _sum(weights_TK, rows_TKD):
    return (weights_TK[..., None] * rows_TKD).sum(1).to(rows_TKD.dtype)


@caught_by("sums")
def weights_forgotten(buf_ECD, idx_TK, pos_TK, weights_TK):
    """Where do the weights come in?"""
    return _rows(buf_ECD, idx_TK, pos_TK)[0].sum(1) + 0 * weights_TK.sum().to(buf_ECD.dtype)


@caught_by("sums")
def mean_over_the_slots(buf_ECD, idx_TK, pos_TK, weights_TK):
    """The weights say how much each expert counts. Why divide by K as well?"""
    return _sum(weights_TK, _rows(buf_ECD, idx_TK, pos_TK)[0]) / idx_TK.shape[1]


@caught_by("sums")
def first_choice_only(buf_ECD, idx_TK, pos_TK, weights_TK):
    """What happens to the second choice's result?"""
    return _sum(weights_TK[:, :1], _rows(buf_ECD, idx_TK[:, :1], pos_TK[:, :1])[0])


@caught_by("sums")
def last_choice_wins(buf_ECD, idx_TK, pos_TK, weights_TK):
    """A token has K rows to add. What happens to the first when the second arrives?"""
    return _sum(weights_TK[:, -1:], _rows(buf_ECD, idx_TK[:, -1:], pos_TK[:, -1:])[0])


@caught_by("sums")
def weights_in_reverse(buf_ECD, idx_TK, pos_TK, weights_TK):
    """Which weight stands beside which expert?"""
    if weights_TK.shape[1] == 1:
        weights_TK = weights_TK.flip(0)
    return _sum(weights_TK.flip(1), _rows(buf_ECD, idx_TK, pos_TK)[0])


@caught_by("sums")
def expert_and_place_mixed_up(buf_ECD, idx_TK, pos_TK, weights_TK):
    """The flat slot of expert e, place c: how many slots lie before expert e's first?"""
    experts, capacity, _ = buf_ECD.shape
    flat_TK = (idx_TK + pos_TK * experts).clamp(max=experts * capacity - 1)
    rows_TKD = buf_ECD.flatten(0, 1)[flat_TK] * (pos_TK < capacity)[..., None]
    return _sum(weights_TK, rows_TKD)


@caught_by("sums")
def always_renormalised(buf_ECD, idx_TK, pos_TK, weights_TK):
    """Whether the weights sum to 1 was decided in the gate. Must it be decided again here?"""
    weights_TK = weights_TK / weights_TK.sum(1, keepdim=True)
    return _sum(weights_TK, _rows(buf_ECD, idx_TK, pos_TK)[0])


@caught_by("dropped")
def reads_the_last_slot(buf_ECD, idx_TK, pos_TK, weights_TK):
    """clamp() makes everybody who is late read the last slot. Whose result is that?"""
    return _sum(weights_TK, buf_ECD[idx_TK, pos_TK.clamp(max=buf_ECD.shape[1] - 1)])


@caught_by("dropped")
def reads_from_the_start_again(buf_ECD, idx_TK, pos_TK, weights_TK):
    """Place C becomes slot 0 again. Whose result is that?"""
    return _sum(weights_TK, buf_ECD[idx_TK, pos_TK % buf_ECD.shape[1]])


@caught_by("dropped")
def reads_from_the_next_expert(buf_ECD, idx_TK, pos_TK, weights_TK):
    """Slot e·C + C: whose slot is that?"""
    slots = buf_ECD.shape[0] * buf_ECD.shape[1]
    flat_TK = (idx_TK * buf_ECD.shape[1] + pos_TK).clamp(max=slots - 1)
    return _sum(weights_TK, buf_ECD.flatten(0, 1)[flat_TK])


@caught_by("dropped")
def late_places_not_caught(buf_ECD, idx_TK, pos_TK, weights_TK):
    """A buffer has slots 0 to C−1. What does your code do with place C?"""
    return _sum(weights_TK, buf_ECD[idx_TK, pos_TK])


@caught_by("dropped")
def place_c_still_read(buf_ECD, idx_TK, pos_TK, weights_TK):
    """With C slots, is place C the last that fits, or the first that does not?"""
    last = buf_ECD.shape[1] - 1
    rows_TKD = buf_ECD[idx_TK, pos_TK.clamp(max=last)] * (pos_TK <= last + 1)[..., None]
    return _sum(weights_TK, rows_TKD)


@caught_by("dropped")
def last_slot_not_read(buf_ECD, idx_TK, pos_TK, weights_TK):
    """With C slots, is slot C − 1 one of them?"""
    last = buf_ECD.shape[1] - 1
    return _sum(weights_TK, buf_ECD[idx_TK, pos_TK.clamp(max=last)] * (pos_TK < last)[..., None])


@caught_by("dropped")
def nan_for_the_dropped(buf_ECD, idx_TK, pos_TK, weights_TK):
    """You divide by the weight that is left. Should a dropped choice change the others' weights at all?"""
    rows_TKD, kept_TK = _rows(buf_ECD, idx_TK, pos_TK)
    left_TK = weights_TK * kept_TK
    return _sum(left_TK / left_TK.sum(1, keepdim=True) * weights_TK.sum(1, keepdim=True), rows_TKD)


@caught_by("not_rescaled")
def the_rest_scaled_up(buf_ECD, idx_TK, pos_TK, weights_TK):
    """A choice is dropped, and you make the others louder. Who asked for that?"""
    rows_TKD, kept_TK = _rows(buf_ECD, idx_TK, pos_TK)
    left_T1 = (weights_TK * kept_TK).sum(1, keepdim=True).clamp(min=1e-9)
    return _sum(weights_TK * weights_TK.sum(1, keepdim=True) / left_T1, rows_TKD)


@caught_by("not_rescaled")
def whole_token_dropped(buf_ECD, idx_TK, pos_TK, weights_TK):
    """One of a token's choices was full. Is the other one's result lost too?"""
    rows_TKD, kept_TK = _rows(buf_ECD, idx_TK, pos_TK)
    return _sum(weights_TK * kept_TK.all(1, keepdim=True), rows_TKD)


@caught_by("not_rescaled")
def dropped_weight_given_to_the_first(buf_ECD, idx_TK, pos_TK, weights_TK):
    """The first choice inherits the second one's weight. Should the first one's weight change?"""
    rows_TKD, kept_TK = _rows(buf_ECD, idx_TK, pos_TK)
    lost_T = (weights_TK * ~kept_TK).sum(1)
    weights_TK = torch.cat([weights_TK[:, :1] + lost_T[:, None] * kept_TK[:, :1], weights_TK[:, 1:]], dim=1)
    return _sum(weights_TK, rows_TKD)


@caught_by("gradients")
def weights_detached(buf_ECD, idx_TK, pos_TK, weights_TK):
    """How does the router learn, if the weights lead nowhere?"""
    return _sum(weights_TK.detach(), _rows(buf_ECD, idx_TK, pos_TK)[0])


@caught_by("gradients")
def buffers_detached(buf_ECD, idx_TK, pos_TK, weights_TK):
    """How do the experts learn, if their results are cut off?"""
    return _sum(weights_TK, _rows(buf_ECD.detach(), idx_TK, pos_TK)[0])


@caught_by("mixed_dtypes", form=True)
def dtype_of_the_product(buf_ECD, idx_TK, pos_TK, weights_TK):
    """bfloat16 times float32 is float32. Which dtype goes on to the next layer?"""
    return (weights_TK[..., None] * _rows(buf_ECD, idx_TK, pos_TK)[0]).sum(1)


@caught_by("other_inputs", form=True)
def added_in_float32(buf_ECD, idx_TK, pos_TK, weights_TK):
    """float64 went in. Which digits does a detour through float32 cost?"""
    return _sum(weights_TK.float(), _rows(buf_ECD, idx_TK, pos_TK)[0].float()).to(buf_ECD.dtype)


@caught_by("other_inputs", form=True)
def dropped_weights_zeroed_in_place(buf_ECD, idx_TK, pos_TK, weights_TK):
    """Whose tensor do you write zeros into, and who may still read it?"""
    rows_TKD, kept_TK = _rows(buf_ECD, idx_TK, pos_TK)
    y_TD = _sum(weights_TK, rows_TKD)
    weights_TK.data.mul_(kept_TK)
    return y_TD
