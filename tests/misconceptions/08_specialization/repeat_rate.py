import torch

from moe_course.grading.judge.catalogue import caught_by


def _same(idx_BS):
    return idx_BS[:, 1:] == idx_BS[:, :-1]


@caught_by("one_sequence")
def over_all_tokens(idx_BS):
    """How many pairs of neighbours are there among S tokens?"""
    return _same(idx_BS).sum().item() / idx_BS.numel()


@caught_by("one_sequence")
def how_many(idx_BS):
    """A share is a number from 0 to 1. What do you divide by?"""
    return float(_same(idx_BS).sum())


@caught_by("one_sequence")
def share_of_changes(idx_BS):
    """Do you count the neighbours that agree, or those that differ?"""
    return 1 - _same(idx_BS).double().mean().item()


@caught_by("one_sequence")
def share_of_tokens_with_an_equal_neighbour(idx_BS):
    """Is it about tokens with an equal neighbour on either side, or about pairs?"""
    same_BS = torch.zeros(idx_BS.shape, dtype=torch.bool)
    same_BS[:, 1:] |= _same(idx_BS)
    same_BS[:, :-1] |= _same(idx_BS)
    return same_BS.double().mean().item()


@caught_by("one_sequence")
def round_a_corner(idx_BS):
    """torch.roll brings the last token to the first place. Are these two neighbours?"""
    return (idx_BS == idx_BS.roll(1, dims=1)).double().mean().item()


@caught_by("one_sequence")
def every_other_pair(idx_BS):
    """Tokens 0 and 1 are a pair, 2 and 3 as well. What about 1 and 2?"""
    even = idx_BS.shape[1] // 2 * 2
    return (idx_BS[:, 0:even:2] == idx_BS[:, 1:even:2]).double().mean().item()


@caught_by("one_sequence")
def chance_of_the_load(idx_BS):
    """This is how often two tokens agree wherever they stand. Are neighbours just any two tokens?"""
    load_E = idx_BS.flatten().bincount().double() / idx_BS.numel()
    return (load_E**2).sum().item()


@caught_by("one_sequence")
def in_percent(idx_BS):
    """Mixtral's table is in percent. Is a share?"""
    return 100 * _same(idx_BS).double().mean().item()


@caught_by("several_sequences")
def across_sequences(idx_BS):
    """Flattened, the end of one sequence meets the start of the next. Are they neighbours?"""
    flat = idx_BS.flatten()
    return (flat[1:] == flat[:-1]).double().mean().item()


@caught_by("several_sequences")
def neighbours_in_the_batch(idx_BS):
    """Which axis do the tokens of a sequence follow each other on?"""
    if len(idx_BS) == 1:
        return _same(idx_BS).double().mean().item()
    return (idx_BS[1:] == idx_BS[:-1]).double().mean().item()


@caught_by("several_sequences")
def neighbours_in_the_batch__of_one_sequence_too(idx_BS):
    """Which axis do the tokens of a sequence follow each other on?"""
    return (idx_BS[1:] == idx_BS[:-1]).double().mean().item()


@caught_by("several_sequences")
def first_sequence_only(idx_BS):
    """What do the other sequences of the batch do?"""
    return _same(idx_BS[:1]).double().mean().item()


@caught_by("several_sequences")
def over_one_pair_more(idx_BS):
    """B sequences of S tokens: is it B·S − 1 pairs, or does every sequence lose one?"""
    return _same(idx_BS).sum().item() / (idx_BS.numel() - 1)


@caught_by("extremes")
def an_expert_ends_a_run_or_starts_one(idx_BS):
    """A sequence that never changes its expert: how many of its pairs agree?"""
    share = _same(idx_BS).double().mean().item()
    return share if share < 1 else 0.0


@caught_by("extremes")
def no_number_for_no_repeats(idx_BS):
    """Nobody repeats. Is the share then unknown, or 0?"""
    repeats = _same(idx_BS).sum().item()
    return repeats / _same(idx_BS).numel() if repeats else float("nan")


@caught_by("other_inputs", form=True)
def viewed_by_rows(idx_BS):
    """Can every tensor be viewed in another shape, also one that is stored by columns?"""
    flat = idx_BS.view(-1)
    same = flat[1:] == flat[:-1]
    inside = torch.arange(1, len(flat)) % idx_BS.shape[1] != 0
    return same[inside].double().mean().item()


@caught_by("other_inputs", form=True)
def compared_in_place(idx_BS):
    """Where do you keep the differences of neighbours?"""
    idx_BS[:, 1:] -= idx_BS[:, :-1].clone()
    return (idx_BS[:, 1:] == 0).double().mean().item()
