import torch

from moe_course.grading.judge.catalogue import caught_by


def _placed(load_E, num_ranks, order, prefer):
    """Experts in `order`, each to the rank with room that has the smallest prefer(rank, total, held)."""
    loads = load_E.tolist()
    total, held, rank_of = [0.0] * num_ranks, [0] * num_ranks, [0] * len(loads)
    for expert in order:
        room = [r for r in range(num_ranks) if held[r] < len(loads) // num_ranks]
        rank = min(room, key=lambda r: prefer(r, total, held))
        rank_of[expert], total[rank], held[rank] = rank, total[rank] + loads[expert], held[rank] + 1
    return torch.tensor(rank_of)


def _heaviest(load_E):
    return sorted(range(len(load_E)), key=lambda e: -float(load_E[e]))


def _lightest_rank(rank, total, held):
    return total[rank]


@caught_by("greedy")
def blocks_as_before(load_E, num_ranks):
    """Blocks of neighbours ignore the loads. What are they given for?"""
    return torch.arange(len(load_E)) // (len(load_E) // num_ranks)


@caught_by("greedy")
def dealt_like_cards(load_E, num_ranks):
    """You deal the heaviest first, one to each rank. Who is lightest after the first round?"""
    return _placed(load_E, num_ranks, _heaviest(load_E), lambda r, total, held: held[r])


@caught_by("greedy")
def back_and_forth(load_E, num_ranks):
    """Dealing back and forth is better than dealing. Is it the rule that was asked for?"""
    rank_of = [0] * len(load_E)
    for place, expert in enumerate(_heaviest(load_E)):
        turn, rank = divmod(place, num_ranks)
        rank_of[expert] = rank if turn % 2 == 0 else num_ranks - 1 - rank
    return torch.tensor(rank_of)


@caught_by("greedy")
def lightest_first(load_E, num_ranks):
    """If the heaviest expert comes last, who can still make up for it?"""
    order = sorted(range(len(load_E)), key=lambda e: float(load_E[e]))
    return _placed(load_E, num_ranks, order, _lightest_rank)


@caught_by("greedy")
def in_the_order_they_come(load_E, num_ranks):
    """Which expert is placed first, and does its load decide that?"""
    return _placed(load_E, num_ranks, range(len(load_E)), _lightest_rank)


@caught_by("greedy")
def loads_never_added(load_E, num_ranks):
    """Is a rank still the lightest after it got the heaviest expert?"""
    return _placed(load_E, num_ranks, _heaviest(load_E), lambda r, total, held: 0)


@caught_by("greedy")
def table_of_experts(load_E, num_ranks):
    """Your rows are ranks and hold experts. For each expert, which rank is it?"""
    rank_E = _placed(load_E, num_ranks, _heaviest(load_E), _lightest_rank)
    return rank_E.argsort(stable=True).view(num_ranks, -1)


@caught_by("room")
def no_room_limit(load_E, num_ranks):
    """How many experts can a rank hold, if all have tensors of one shape?"""
    total, rank_of = [0.0] * num_ranks, [0] * len(load_E)
    for expert in _heaviest(load_E):
        rank_of[expert] = total.index(min(total))
        total[rank_of[expert]] += float(load_E[expert])
    return torch.tensor(rank_of)


@caught_by("ties")
def later_experts_first(load_E, num_ranks):
    """Two experts weigh the same. Which of them is placed first in your order?"""
    order = sorted(range(len(load_E)), key=lambda e: (-float(load_E[e]), -e))
    return _placed(load_E, num_ranks, order, _lightest_rank)


@caught_by("ties")
def later_ranks_first(load_E, num_ranks):
    """Two ranks are equally light. Which of them gets the expert?"""
    return _placed(load_E, num_ranks, _heaviest(load_E), lambda r, total, held: (total[r], -r))


@caught_by("other_inputs", form=True)
def a_list(load_E, num_ranks):
    """A list has no device and no dtype. What was to come back?"""
    return _placed(load_E, num_ranks, _heaviest(load_E), _lightest_rank).tolist()


@caught_by("other_inputs", form=True)
def placed_experts_marked(load_E, num_ranks):
    """You cross out what is placed. In whose tensor?"""
    rank_E = _placed(load_E, num_ranks, _heaviest(load_E), _lightest_rank)
    load_E.fill_(-1)
    return rank_E
