import torch

from moe_course.grading.judge.catalogue import caught_by


def _visits(idx_TK, num_experts, num_nodes):
    visits_TM = torch.zeros(len(idx_TK), num_nodes, dtype=torch.int64)
    return visits_TM.scatter(1, idx_TK // (num_experts // num_nodes), 1)


@caught_by("apart")
def tokens_of_each_node(idx_TK, num_experts, num_nodes):
    """You sum over the tokens. Whose number of nodes is asked for?"""
    return _visits(idx_TK, num_experts, num_nodes).sum(dim=0)


@caught_by("apart")
def nodes_of_the_batch(idx_TK, num_experts, num_nodes):
    """That is how many nodes all tokens need together. And each of them?"""
    return (idx_TK // (num_experts // num_nodes)).unique().numel()


@caught_by("apart")
def table_of_visits(idx_TK, num_experts, num_nodes):
    """Your table says who visits whom. How many nodes is that for each token?"""
    return _visits(idx_TK, num_experts, num_nodes)


@caught_by("apart")
def first_node_left_out(idx_TK, num_experts, num_nodes):
    """Node 0 is a node like any other. Where does it go in your count?"""
    return _visits(idx_TK, num_experts, num_nodes)[:, 1:].sum(dim=1)


@caught_by("once")
def every_choice_counted(idx_TK, num_experts, num_nodes):
    """A token has two experts on one node. How often is that node in your count?"""
    return torch.full((len(idx_TK),), idx_TK.shape[1])


@caught_by("once")
def only_neighbouring_slots(idx_TK, num_experts, num_nodes):
    """You compare each slot with the one before it. What about node 0, node 1, node 0?"""
    node_TK = idx_TK // (num_experts // num_nodes)
    return 1 + (node_TK[:, 1:] != node_TK[:, :-1]).sum(dim=1)


@caught_by("once")
def dealt_like_cards(idx_TK, num_experts, num_nodes):
    """Does a node hold every M-th expert, or a block of neighbours?"""
    visits_TM = torch.zeros(len(idx_TK), num_nodes, dtype=torch.int64)
    return visits_TM.scatter(1, idx_TK % num_nodes, 1).sum(dim=1)


@caught_by("once")
def as_many_as_possible(idx_TK, num_experts, num_nodes):
    """min(K, M) is the most that a token can need. How many nodes do this token's experts lie on?"""
    return torch.full((len(idx_TK),), min(idx_TK.shape[1], num_nodes))


@caught_by("other_inputs", form=True)
def float_counts(idx_TK, num_experts, num_nodes):
    """Which dtype does a count of nodes have?"""
    return _visits(idx_TK, num_experts, num_nodes).float().sum(dim=1)


@caught_by("other_inputs", form=True)
def sorted_in_place(idx_TK, num_experts, num_nodes):
    """Your caller still needs idx_TK as it was. What has your code written into it?"""
    nodes_T = _visits(idx_TK, num_experts, num_nodes).sum(dim=1)
    idx_TK.copy_(idx_TK.sort(dim=1).values)
    return nodes_T
