from moe_course.grading.judge.catalogue import caught_by


def _sizes(num_experts, num_ranks):
    if num_experts < 1 or num_ranks < 1 or num_experts % num_ranks:
        raise ValueError((num_experts, num_ranks))


def _checked(expert, num_experts, num_ranks):
    _sizes(num_experts, num_ranks)
    if not 0 <= expert < num_experts:
        raise ValueError((expert, num_experts))


@caught_by("blocks")
def dealt_like_cards(expert, num_experts, num_ranks):
    """You deal the experts out one by one. Which experts are neighbours on a rank, in blocks?"""
    _checked(expert, num_experts, num_ranks)
    return expert % num_ranks


@caught_by("blocks")
def divided_by_the_ranks(expert, num_experts, num_ranks):
    """How large is one block: as many experts as there are ranks, or E/R of them?"""
    _checked(expert, num_experts, num_ranks)
    return expert // num_ranks


@caught_by("blocks")
def place_within_the_block(expert, num_experts, num_ranks):
    """Is that the block, or the expert's place inside it?"""
    _checked(expert, num_experts, num_ranks)
    return expert % (num_experts // num_ranks)


@caught_by("blocks")
def ranks_from_one(expert, num_experts, num_ranks):
    """Which number does torch.distributed give the first rank?"""
    _checked(expert, num_experts, num_ranks)
    return expert // (num_experts // num_ranks) + 1


@caught_by("blocks")
def from_the_last_rank(expert, num_experts, num_ranks):
    """Who holds expert 0: the first rank, or the last?"""
    _checked(expert, num_experts, num_ranks)
    return num_ranks - 1 - expert // (num_experts // num_ranks)


@caught_by("exact_int", form=True)
def a_float_rank(expert, num_experts, num_ranks):
    """A rank is a number of a process. Which division gives whole numbers?"""
    _checked(expert, num_experts, num_ranks)
    return expert // (num_experts / num_ranks)


@caught_by("divides", form=True)
def rest_to_the_last_rank(expert, num_experts, num_ranks):
    """The last rank takes what is left over. Can all ranks then hold tensors of one shape?"""
    if not 0 <= expert < num_experts or num_ranks < 1:
        raise ValueError((expert, num_experts, num_ranks))
    return min(expert // max(1, num_experts // num_ranks), num_ranks - 1)


@caught_by("divides", form=True)
def rest_spread_out(expert, num_experts, num_ranks):
    """Some ranks get one expert more. What does the exercise want for sizes that do not divide?"""
    if not 0 <= expert < num_experts or num_ranks < 1:
        raise ValueError((expert, num_experts, num_ranks))
    return expert * num_ranks // num_experts


@caught_by("bad", form=True)
def experts_that_there_are_not(expert, num_experts, num_ranks):
    """Which rank holds expert 12 of 12?"""
    _sizes(num_experts, num_ranks)
    return expert // (num_experts // num_ranks)


@caught_by("bad", form=True)
def negative_experts(expert, num_experts, num_ranks):
    """Too large a number is refused. And −1?"""
    _sizes(num_experts, num_ranks)
    if expert >= num_experts:
        raise ValueError(expert)
    return expert // (num_experts // num_ranks)


@caught_by("bad", form=True)
def sizes_of_zero(expert, num_experts, num_ranks):
    """What does your code do with no ranks: a clear ValueError, or whatever the division does?"""
    if num_experts % num_ranks or not 0 <= expert < num_experts:
        raise ValueError((expert, num_experts, num_ranks))
    return expert // (num_experts // num_ranks)
