import torch

from moe_course.grading.judge.catalogue import caught_by


def _counts(idx_TK, num_experts):
    return torch.bincount(idx_TK.flatten(), minlength=num_experts)


def _numbers(idx_TK, num_experts, capacity):
    """How many are dropped, how many slots are empty."""
    counts_E = _counts(idx_TK, num_experts)
    return int((counts_E - capacity).clamp(min=0).sum()), int((capacity - counts_E).clamp(min=0).sum())


@caught_by("dropped")
def compared_in_total(idx_TK, num_experts, capacity):
    """There is room for all of them in total. Is there room where they want to go?"""
    n, slots = idx_TK.numel(), num_experts * capacity
    return max(0, n - slots) / n, max(0, slots - n) / slots


@caught_by("dropped")
def counted_not_shared(idx_TK, num_experts, capacity):
    """Those are counts. What are they shares of?"""
    return tuple(float(number) for number in _numbers(idx_TK, num_experts, capacity))


@caught_by("dropped")
def share_of_the_tokens(idx_TK, num_experts, capacity):
    """You divide by the tokens. How many assignments are there?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return dropped / len(idx_TK), empty / (num_experts * capacity)


@caught_by("dropped")
def waste_before_drops(idx_TK, num_experts, capacity):
    """Which of the two shares comes first?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return empty / (num_experts * capacity), dropped / idx_TK.numel()


@caught_by("dropped")
def kept_instead_of_dropped(idx_TK, num_experts, capacity):
    """That is the share of those who found a place. And the others?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return 1 - dropped / idx_TK.numel(), 1 - empty / (num_experts * capacity)


@caught_by("dropped")
def percent(idx_TK, num_experts, capacity):
    """A share lies between 0 and 1. Where do yours lie?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return 100 * dropped / idx_TK.numel(), 100 * empty / (num_experts * capacity)


@caught_by("other_inputs", form=True)
def tensors_returned(idx_TK, num_experts, capacity):
    """The signature promises floats. What does sum() of a tensor return?"""
    counts_E = _counts(idx_TK, num_experts)
    dropped, empty = (counts_E - capacity).clamp(min=0).sum(), (capacity - counts_E).clamp(min=0).sum()
    return dropped / idx_TK.numel(), empty / (num_experts * capacity)


@caught_by("dropped")
def share_of_crowded_experts(idx_TK, num_experts, capacity):
    """You count experts that are too full. How many assignments does each of them turn away?"""
    counts_E = _counts(idx_TK, num_experts)
    return float((counts_E > capacity).double().mean()), float((counts_E < capacity).double().mean())


@caught_by("dropped")
def first_choices_only(idx_TK, num_experts, capacity):
    """Second choices take places too. Do you count them?"""
    dropped, empty = _numbers(idx_TK[:, :1], num_experts, capacity)
    return dropped / len(idx_TK), empty / (num_experts * capacity)


@caught_by("dropped")
def share_of_the_slots(idx_TK, num_experts, capacity):
    """Dropped assignments have no slot. Of what are they a share?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return dropped / (num_experts * capacity), empty / (num_experts * capacity)


@caught_by("dropped")
def mean_over_experts(idx_TK, num_experts, capacity):
    """You average a share over experts. Should an expert with 2 assignments count as much as one with 200?"""
    counts_E = _counts(idx_TK, num_experts).double()
    shares_E = (counts_E - capacity).clamp(min=0) / counts_E.clamp(min=1)
    _, empty = _numbers(idx_TK, num_experts, capacity)
    return float(shares_E.mean()), empty / (num_experts * capacity)


@caught_by("empty")
def empty_per_assignment(idx_TK, num_experts, capacity):
    """Empty slots are a share of what: of the assignments, or of all slots?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return dropped / idx_TK.numel(), empty / idx_TK.numel()


@caught_by("empty")
def slots_minus_assignments(idx_TK, num_experts, capacity):
    """Slots minus assignments: do the dropped ones fill a slot?"""
    dropped, _ = _numbers(idx_TK, num_experts, capacity)
    slots = num_experts * capacity
    return dropped / idx_TK.numel(), max(0, slots - idx_TK.numel()) / slots


@caught_by("empty")
def slots_minus_assignments__below_zero(idx_TK, num_experts, capacity):
    """Slots minus assignments: do the dropped ones fill a slot?"""
    dropped, _ = _numbers(idx_TK, num_experts, capacity)
    slots = num_experts * capacity
    return dropped / idx_TK.numel(), (slots - idx_TK.numel()) / slots


@caught_by("empty")
def share_of_idle_experts(idx_TK, num_experts, capacity):
    """You count experts with nothing to do. And the empty slots of the others?"""
    dropped, _ = _numbers(idx_TK, num_experts, capacity)
    return dropped / idx_TK.numel(), float((_counts(idx_TK, num_experts) == 0).double().mean())


@caught_by("empty")
def complement_of_the_drops(idx_TK, num_experts, capacity):
    """What is not dropped is kept. Is what is kept the same as what is empty?"""
    dropped, _ = _numbers(idx_TK, num_experts, capacity)
    return dropped / idx_TK.numel(), 1 - dropped / idx_TK.numel()


@caught_by("empty")
def share_of_one_buffer(idx_TK, num_experts, capacity):
    """How many slots are there: C, or C for each expert?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    return dropped / idx_TK.numel(), empty / capacity


@caught_by("nobody")
def highest_chosen_expert_ends_the_count(idx_TK, num_experts, capacity):
    """bincount stops at the highest expert that was chosen. Are there others behind it?"""
    counts_E = torch.bincount(idx_TK.flatten())
    dropped, empty = (counts_E - capacity).clamp(min=0).sum(), (capacity - counts_E).clamp(min=0).sum()
    return int(dropped) / idx_TK.numel(), int(empty) / (num_experts * capacity)


@caught_by("nobody")
def only_chosen_experts_counted(idx_TK, num_experts, capacity):
    """unique() lists the experts that were chosen. Do the others have buffers?"""
    counts = torch.unique(idx_TK, return_counts=True)[1]
    kept = int(counts.clamp(max=capacity).sum())
    return 1 - kept / idx_TK.numel(), 1 - kept / (len(counts) * capacity)


@caught_by("other_inputs", form=True)
def sorted_in_place(idx_TK, num_experts, capacity):
    """You sort the choices in order to count them. In whose tensor?"""
    dropped, empty = _numbers(idx_TK, num_experts, capacity)
    idx_TK.copy_(idx_TK.sort(dim=0).values)
    return dropped / idx_TK.numel(), empty / (num_experts * capacity)
