import torch

from moe_course.grading.judge.catalogue import caught_by


def _token(order_N, weights_TK):
    return order_N // weights_TK.shape[1]


def _weights(order_N, weights_TK):
    return weights_TK.flatten()[order_N][:, None]


def _added(rows, token_N, weights_TK, dtype):
    y_TD = torch.zeros(len(weights_TK), rows.shape[1], dtype=dtype)
    return y_TD.index_add(0, token_N, rows.to(dtype))


@caught_by("returns")
def order_applied_again(y_ND, order_N, weights_TK):
    """order_N led from the tokens to the experts. Does the same road lead back?"""
    rows = y_ND[order_N].unflatten(0, weights_TK.shape)
    return (weights_TK[..., None] * rows).sum(1).to(y_ND.dtype)


@caught_by("returns")
def rows_taken_as_tokens(y_ND, order_N, weights_TK):
    """Row 0 is expert 0's first. Is it token 0's as well?"""
    rows = y_ND.unflatten(0, weights_TK.shape)
    return (weights_TK[..., None] * rows).sum(1).to(y_ND.dtype)


@caught_by("returns")
def added_at_the_slot(y_ND, order_N, weights_TK):
    """n = t·K + k. Which of the two does n % K give back, the token or the slot?"""
    rows = _weights(order_N, weights_TK) * y_ND
    return _added(rows, order_N % weights_TK.shape[1], weights_TK, y_ND.dtype)


@caught_by("sums")
def last_row_wins(y_ND, order_N, weights_TK):
    """You write to a token's row K times. What is left of the first time?"""
    rows = (_weights(order_N, weights_TK) * y_ND).to(y_ND.dtype)
    y_TD = torch.zeros(len(weights_TK), y_ND.shape[1], dtype=y_ND.dtype)
    for row, token in enumerate(_token(order_N, weights_TK).tolist()):
        y_TD[token] = rows[row]
    return y_TD


@caught_by("sums")
def plus_equals_on_repeated_indices(y_ND, order_N, weights_TK):
    """`y[token_N] += rows` reads once and writes once. A token stands K times in token_N: which row is left?"""
    y_TD = torch.zeros(len(weights_TK), y_ND.shape[1], dtype=y_ND.dtype)
    y_TD[_token(order_N, weights_TK)] += (_weights(order_N, weights_TK) * y_ND).to(y_ND.dtype)
    return y_TD


@caught_by("sums")
def averaged_over_the_slots(y_ND, order_N, weights_TK):
    """The weights already say how much each row counts. Why divide by K as well?"""
    rows = _weights(order_N, weights_TK) * y_ND / weights_TK.shape[1]
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("sums")
def first_slot_only(y_ND, order_N, weights_TK):
    """A token has K rows. How many of them arrive?"""
    first_N1 = (order_N % weights_TK.shape[1] == 0)[:, None]
    rows = torch.where(first_N1, _weights(order_N, weights_TK) * y_ND, 0)
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("sums")
def slots_before_tokens(y_ND, order_N, weights_TK):
    """Is n = t·K + k, or k·T + t?"""
    rows = _weights(order_N, weights_TK) * y_ND
    return _added(rows, order_N % len(weights_TK), weights_TK, y_ND.dtype)


@caught_by("sums")
def slots_before_tokens__weights_too(y_ND, order_N, weights_TK):
    """Is n = t·K + k, or k·T + t?"""
    rows = _weights(order_N, weights_TK.T) * y_ND
    return _added(rows, order_N % len(weights_TK), weights_TK, y_ND.dtype)


@caught_by("sums")
def assignments_left_apart(y_ND, order_N, weights_TK):
    """You have put T·K rows back in order. How many rows does the layer owe?"""
    rows = (_weights(order_N, weights_TK) * y_ND).to(y_ND.dtype)
    return torch.zeros_like(rows).index_add(0, order_N, rows)


@caught_by("weights")
def weights_ignored(y_ND, order_N, weights_TK):
    """Do all experts of a token count the same?"""
    return _added(y_ND, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("weights")
def weights_left_in_token_order(y_ND, order_N, weights_TK):
    """Row 0 of y_ND is expert 0's first. Is the first of the flat weights its weight?"""
    rows = weights_TK.flatten()[:, None] * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("weights")
def first_weight_for_every_slot(y_ND, order_N, weights_TK):
    """Which weight does a token's second row get?"""
    token_N = _token(order_N, weights_TK)
    return _added(weights_TK[token_N, :1] * y_ND, token_N, weights_TK, y_ND.dtype)


@caught_by("weights")
def weights_renormalised(y_ND, order_N, weights_TK):
    """Whether weights sum to 1 was decided before they came here. Why decide it again?"""
    shares_TK = weights_TK / weights_TK.sum(1, keepdim=True)
    rows = _weights(order_N, shares_TK) * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("weights")
def weights_flattened_slot_by_slot(y_ND, order_N, weights_TK):
    """Does the flat list of weights run along the slots of token 0, or along the tokens of slot 0?"""
    rows = weights_TK.T.flatten()[order_N][:, None] * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("gradients")
def weights_detached(y_ND, order_N, weights_TK):
    """Through what does the task reach the router, if not through the weights?"""
    rows = _weights(order_N, weights_TK.detach()) * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("gradients")
def rows_detached(y_ND, order_N, weights_TK):
    """The router can learn here. Can the experts?"""
    rows = _weights(order_N, weights_TK) * y_ND.detach()
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("mixed_dtypes", form=True)
def dtype_of_the_weights_comes_back(y_ND, order_N, weights_TK):
    """Which dtype do the layers above expect when the rows are bfloat16?"""
    rows = _weights(order_N, weights_TK) * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, rows.dtype)


@caught_by("mixed_dtypes", form=True)
def float32_added_to_bfloat16(y_ND, order_N, weights_TK):
    """index_add wants both tensors in one dtype. Which dtype has a float32 weight times a bfloat16 row?"""
    rows = _weights(order_N, weights_TK) * y_ND
    y_TD = torch.zeros(len(weights_TK), y_ND.shape[1], dtype=y_ND.dtype)
    return y_TD.index_add(0, _token(order_N, weights_TK), rows)


@caught_by("other_inputs", form=True)
def rows_weighted_in_place(y_ND, order_N, weights_TK):
    """`y_ND *= …` is short. What does the caller find in y_ND afterwards?"""
    rows = y_ND if not y_ND.requires_grad else y_ND.clone()
    rows *= _weights(order_N, weights_TK).to(y_ND.dtype)
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)


@caught_by("other_inputs", form=True)
def always_float32(y_ND, order_N, weights_TK):
    """Which dtype has torch.zeros when you name none?"""
    dtype = y_ND.dtype if y_ND.dtype == torch.bfloat16 else torch.float32
    rows = _weights(order_N, weights_TK) * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, dtype)


@caught_by("other_inputs", form=True)
def weights_viewed_as_a_row(y_ND, order_N, weights_TK):
    """view() wants the rows to lie in memory one after the other. Which method copies them if they do not?"""
    rows = weights_TK.view(-1)[order_N][:, None] * y_ND
    return _added(rows, _token(order_N, weights_TK), weights_TK, y_ND.dtype)
