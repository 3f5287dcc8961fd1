import torch

from moe_course.grading.judge.catalogue import caught_by


def _best_groups(values_TG, top_groups):
    return values_TG.topk(top_groups, dim=-1).indices


def _two_highest(groups):
    return groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(dim=-1)


def _masked(biased_TE, best, num_groups, fill=float("-inf")):
    """The scores of the experts in the best groups, `fill` elsewhere."""
    size = biased_TE.shape[1] // num_groups
    open_TG = torch.zeros(len(biased_TE), num_groups, dtype=torch.bool).scatter(1, best, True)
    return biased_TE.masked_fill(~open_TG.repeat_interleave(size, dim=1), fill)


def _grouped(biased_TE, num_groups):
    return biased_TE.reshape(len(biased_TE), num_groups, -1)


def _with(group_score, scores_TE, bias_E, num_groups, top_groups, k):
    """The right answer, but for the score of a group."""
    biased_TE = scores_TE + bias_E
    best = _best_groups(group_score(_grouped(biased_TE, num_groups)), top_groups)
    return _masked(biased_TE, best, num_groups).topk(k, dim=-1).indices


@caught_by("biased_choice")
def bias_ignored(scores_TE, bias_E, num_groups, top_groups, k):
    """What is bias_E for, if nothing depends on it?"""
    return _with(_two_highest, scores_TE, 0 * bias_E, num_groups, top_groups, k)


@caught_by("biased_choice")
def bias_subtracted(scores_TE, bias_E, num_groups, top_groups, k):
    """An idle expert's bias is raised. Should that make it more likely to be chosen, or less?"""
    return _with(_two_highest, scores_TE, -bias_E, num_groups, top_groups, k)


@caught_by("biased_choice")
def bias_for_the_groups_only(scores_TE, bias_E, num_groups, top_groups, k):
    """You compare groups with the bias. And the experts in them?"""
    best = _best_groups(_two_highest(_grouped(scores_TE + bias_E, num_groups)), top_groups)
    return _masked(scores_TE, best, num_groups).topk(k, dim=-1).indices


@caught_by("biased_choice")
def bias_multiplied(scores_TE, bias_E, num_groups, top_groups, k):
    """A bias of 0 should change nothing. What does a factor of 0 do?"""
    return _with(_two_highest, scores_TE * bias_E, 0 * bias_E, num_groups, top_groups, k)


@caught_by("biased_choice")
def smallest_chosen(scores_TE, bias_E, num_groups, top_groups, k):
    """Which end of the order do your experts come from?"""
    biased_TE = scores_TE + bias_E
    best = _best_groups(_two_highest(_grouped(biased_TE, num_groups)), top_groups)
    return _masked(biased_TE, best, num_groups, float("inf")).topk(k, dim=-1, largest=False).indices


@caught_by("biased_choice")
def scores_returned(scores_TE, bias_E, num_groups, top_groups, k):
    """`topk` gives values and indices. Which of the two says who works?"""
    biased_TE = scores_TE + bias_E
    best = _best_groups(_two_highest(_grouped(biased_TE, num_groups)), top_groups)
    return _masked(biased_TE, best, num_groups).topk(k, dim=-1).values


@caught_by("biased_choice")
def places_within_the_chosen_groups(scores_TE, bias_E, num_groups, top_groups, k):
    """You number the experts within the chosen groups. Which expert of the layer is number 0?"""
    grouped = _grouped(scores_TE + bias_E, num_groups)
    best = _best_groups(_two_highest(grouped), top_groups)
    kept = grouped.gather(1, best[:, :, None].expand(-1, -1, grouped.shape[2]))
    return kept.flatten(1).topk(k, dim=-1).indices


@caught_by("groups")
def groups_ignored(scores_TE, bias_E, num_groups, top_groups, k):
    """From how many groups may a token's experts come?"""
    return (scores_TE + bias_E).topk(k, dim=-1).indices


@caught_by("groups")
def groups_in_strides(scores_TE, bias_E, num_groups, top_groups, k):
    """Experts of one group lie side by side on one node. Are 0, 4 and 8 neighbours?"""
    biased_TE = scores_TE + bias_E
    size = biased_TE.shape[1] // num_groups
    grouped = biased_TE.reshape(-1, size, num_groups).mT
    best = _best_groups(_two_highest(grouped), top_groups)
    open_TG = torch.zeros(len(biased_TE), num_groups, dtype=torch.bool).scatter(1, best, True)
    return biased_TE.masked_fill(~open_TG.repeat(1, size), float("-inf")).topk(k, dim=-1).indices


@caught_by("groups")
def worst_groups(scores_TE, bias_E, num_groups, top_groups, k):
    """Which groups stay open, and which does your mask close?"""
    biased_TE = scores_TE + bias_E
    values_TG = _two_highest(_grouped(biased_TE, num_groups))
    best = values_TG.topk(top_groups, dim=-1, largest=False).indices
    return _masked(biased_TE, best, num_groups).topk(k, dim=-1).indices


@caught_by("groups")
def first_groups_for_every_token(scores_TE, bias_E, num_groups, top_groups, k):
    """Do all tokens of a batch share their groups, or does each choose its own?"""
    biased_TE = scores_TE + bias_E
    values_TG = _two_highest(_grouped(biased_TE, num_groups))
    best = values_TG[:1].topk(top_groups, dim=-1).indices.expand(len(biased_TE), -1)
    return _masked(biased_TE, best, num_groups).topk(k, dim=-1).indices


@caught_by("groups")
def equal_share_of_every_group(scores_TE, bias_E, num_groups, top_groups, k):
    """Must a token take as many experts from each of its groups, or the best of all of them?"""
    grouped = _grouped(scores_TE + bias_E, num_groups)
    best = _best_groups(_two_highest(grouped), top_groups)
    size, share = grouped.shape[2], -(-k // top_groups)
    inner = grouped.gather(1, best[:, :, None].expand(-1, -1, size)).topk(min(share, size), dim=-1).indices
    return (best[:, :, None] * size + inner).flatten(1)[:, :k]


@caught_by("groups")
def one_group_too_many(scores_TE, bias_E, num_groups, top_groups, k):
    """How many groups does your mask leave open?"""
    return _with(_two_highest, scores_TE, bias_E, num_groups, min(top_groups + 1, num_groups), k)


@caught_by("two_highest")
def best_expert_of_the_group(scores_TE, bias_E, num_groups, top_groups, k):
    """DeepSeek-V2 took the highest score of a group. What does V3 take?"""
    return _with(lambda groups: groups.amax(dim=-1), scores_TE, bias_E, num_groups, top_groups, k)


@caught_by("two_highest")
def sum_of_the_whole_group(scores_TE, bias_E, num_groups, top_groups, k):
    """Many weak experts add up too. How many of a group's scores count?"""
    return _with(lambda groups: groups.sum(dim=-1), scores_TE, bias_E, num_groups, top_groups, k)


@caught_by("two_highest")
def as_many_as_k_per_group(scores_TE, bias_E, num_groups, top_groups, k):
    """The paper adds the K/M highest, and for its own sizes that is two. Does your sum depend on k?"""

    def group_score(groups):
        return groups.topk(min(groups.shape[2], max(1, k // top_groups)), dim=-1).values.sum(dim=-1)

    return _with(group_score, scores_TE, bias_E, num_groups, top_groups, k)


@caught_by("two_highest")
def second_highest_only(scores_TE, bias_E, num_groups, top_groups, k):
    """The two highest scores of a group: both of them, or the second?"""

    def group_score(groups):
        return groups.topk(min(2, groups.shape[2]), dim=-1).values[..., -1]

    return _with(group_score, scores_TE, bias_E, num_groups, top_groups, k)


@caught_by("two_highest")
def first_two_of_the_group(scores_TE, bias_E, num_groups, top_groups, k):
    """Are the two highest scores of a group its first two?"""
    return _with(lambda groups: groups[..., :2].sum(dim=-1), scores_TE, bias_E, num_groups, top_groups, k)


@caught_by("biased_groups")
def groups_by_unbiased_scores(scores_TE, bias_E, num_groups, top_groups, k):
    """The bias moves experts. Does it move groups?"""
    best = _best_groups(_two_highest(_grouped(scores_TE, num_groups)), top_groups)
    return _masked(scores_TE + bias_E, best, num_groups).topk(k, dim=-1).indices


@caught_by("negative_scores")
def masked_with_zero(scores_TE, bias_E, num_groups, top_groups, k):
    """You close a group by setting its scores to 0. What if the open ones are below 0?"""
    biased_TE = scores_TE + bias_E
    best = _best_groups(_two_highest(_grouped(biased_TE, num_groups)), top_groups)
    return _masked(biased_TE, best, num_groups, 0.0).topk(k, dim=-1).indices


@caught_by("negative_scores")
def masked_with_minus_one(scores_TE, bias_E, num_groups, top_groups, k):
    """Which numbers are smaller than every score that a bias can make?"""
    biased_TE = scores_TE + bias_E
    best = _best_groups(_two_highest(_grouped(biased_TE, num_groups)), top_groups)
    return _masked(biased_TE, best, num_groups, -1.0).topk(k, dim=-1).indices


@caught_by("far_biases")
def scores_multiplied_by_the_mask(scores_TE, bias_E, num_groups, top_groups, k):
    """A closed expert's score is multiplied by 0, and then its bias is added. What is left of it?"""
    best = _best_groups(_two_highest(_grouped(scores_TE + bias_E, num_groups)), top_groups)
    return (_masked(scores_TE, best, num_groups, 0.0) + bias_E).topk(k, dim=-1).indices


@caught_by("negative_scores")
def masked_with_minus_ten(scores_TE, bias_E, num_groups, top_groups, k):
    """−10 is far below every sigmoid score. Is it below every score plus bias?"""
    biased_TE = scores_TE + bias_E
    best = _best_groups(_two_highest(_grouped(biased_TE, num_groups)), top_groups)
    return _masked(biased_TE, best, num_groups, -10.0).topk(k, dim=-1).indices


@caught_by("group_of_one")
def two_scores_always(scores_TE, bias_E, num_groups, top_groups, k):
    """What does topk(2) make of a group of one?"""
    return _with(
        lambda groups: groups.topk(2, dim=-1).values.sum(dim=-1), scores_TE, bias_E, num_groups, top_groups, k
    )


@caught_by("group_of_one")
def groups_of_one_score_nothing(scores_TE, bias_E, num_groups, top_groups, k):
    """A group of one has no second expert. Is its score then 0, or the score of its first?"""

    def group_score(groups):
        if groups.shape[2] < 2:
            return torch.zeros(groups.shape[:2])
        return _two_highest(groups)

    return _with(group_score, scores_TE, bias_E, num_groups, top_groups, k)


@caught_by("other_inputs", form=True)
def bias_added_in_place(scores_TE, bias_E, num_groups, top_groups, k):
    """The weights are taken from the unbiased scores later. Are they still there?"""
    idx_TK = _with(_two_highest, scores_TE, bias_E, num_groups, top_groups, k)
    scores_TE += bias_E
    return idx_TK


@caught_by("other_inputs", form=True)
def closed_scores_overwritten(scores_TE, bias_E, num_groups, top_groups, k):
    """masked_fill_ writes into its tensor. Whose tensor is it?"""
    idx_TK = _with(_two_highest, scores_TE, bias_E, num_groups, top_groups, k)
    best = _best_groups(_two_highest(_grouped(scores_TE + bias_E, num_groups)), top_groups)
    scores_TE.copy_(_masked(scores_TE, best, num_groups))
    return idx_TK


@caught_by("other_inputs", form=True)
def view_of_strided_scores(scores_TE, bias_E, num_groups, top_groups, k):
    """The scores come as they lie in memory. Which rows does `as_strided` then read?"""
    flat_TE = scores_TE.as_strided(scores_TE.shape, (scores_TE.shape[1], 1))
    return _with(_two_highest, flat_TE, bias_E, num_groups, top_groups, k)
