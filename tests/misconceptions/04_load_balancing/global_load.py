from moe_course.grading.judge.catalogue import caught_by


@caught_by("equal_sizes")
def summed_and_not_divided(counts_ME):
    """What do the loads of all experts add up to?"""
    return counts_ME.sum(dim=0).float()


@caught_by("equal_sizes")
def mean_count(counts_ME):
    """A mean over micro-batches is still a count. What makes a share of it?"""
    return counts_ME.float().mean(dim=0)


@caught_by("equal_sizes")
def over_the_experts(counts_ME):
    """Which axis are the micro-batches on, and which one should be left?"""
    counts_M = counts_ME.sum(dim=1)
    return counts_M / counts_M.sum()


@caught_by("equal_sizes")
def a_row_for_each_micro_batch(counts_ME):
    """One load for all micro-batches together, or one for each?"""
    return counts_ME / counts_ME.sum(dim=1, keepdim=True)


@caught_by("equal_sizes")
def last_micro_batch_only(counts_ME):
    """What did the micro-batches before the last one do?"""
    return counts_ME[-1] / counts_ME[-1].sum()


@caught_by("equal_sizes")
def whole_number_division(counts_ME):
    """Which kind of division keeps what is behind the point?"""
    counts_ME = counts_ME.long()
    return (counts_ME.sum(dim=0) // counts_ME.sum()).float()


@caught_by("equal_sizes")
def divided_by_the_largest(counts_ME):
    """The busiest expert has load 1 here. Did it get all assignments?"""
    counts_E = counts_ME.sum(dim=0)
    return counts_E / counts_E.max()


@caught_by("equal_sizes")
def not_divided_by_the_number_of_micro_batches(counts_ME):
    """The shares of M micro-batches are added up. What do they sum to?"""
    return (counts_ME / counts_ME.sum(dim=1, keepdim=True).clamp(min=1)).sum(dim=0)


@caught_by("different_sizes")
def mean_of_the_shares(counts_ME):
    """A micro-batch of ten tokens and one of a thousand: have both the same say?"""
    return (counts_ME / counts_ME.sum(dim=1, keepdim=True)).mean(dim=0)


@caught_by("different_sizes")
def mean_of_the_shares_without_empty_ones(counts_ME):
    """Empty micro-batches are out. But do all others weigh the same?"""
    counts_ME = counts_ME[counts_ME.sum(dim=1) > 0]
    return (counts_ME / counts_ME.sum(dim=1, keepdim=True)).mean(dim=0)


@caught_by("different_sizes")
def all_as_large_as_the_first(counts_ME):
    """You multiply the first micro-batch's size by M. Are all of them as large?"""
    return counts_ME.sum(dim=0) / (len(counts_ME) * counts_ME[0].sum())


@caught_by("different_sizes")
def median_of_the_shares(counts_ME):
    """Is the middle share the share of all?"""
    shares_ME = counts_ME / counts_ME.sum(dim=1, keepdim=True).clamp(min=1)
    median_E = shares_ME.median(dim=0).values
    return median_E / median_E.sum()


@caught_by("empty")
def at_least_one_assignment_each(counts_ME):
    """You keep counts above 0 to be safe. What load does that give an expert that nobody chose?"""
    counts_E = counts_ME.clamp(min=1).sum(dim=0)
    return counts_E / counts_E.sum()


@caught_by("empty")
def idle_experts_left_out(counts_ME):
    """How long is your result when an expert got nothing?"""
    counts_E = counts_ME.sum(dim=0)
    return counts_E[counts_E > 0] / counts_E.sum()


@caught_by("empty")
def weighted_mean_of_the_shares(counts_ME):
    """Weighted by size, the mean of the shares is right. What is the share in a micro-batch without assignments?"""
    sizes_M = counts_ME.sum(dim=1, keepdim=True)
    return (counts_ME / sizes_M * sizes_M).sum(dim=0) / sizes_M.sum()


@caught_by("other_inputs", form=True)
def summed_into_the_first(counts_ME):
    """Into whose row do you add the others?"""
    for row in range(1, len(counts_ME)):
        counts_ME[0] += counts_ME[row]
    return counts_ME[0] / counts_ME[0].sum()


@caught_by("other_inputs", form=True)
def loads_in_bfloat16(counts_ME):
    """How many digits has a share in bfloat16?"""
    counts_E = counts_ME.sum(dim=0)
    return (counts_E / counts_E.sum()).bfloat16()
