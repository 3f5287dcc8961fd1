import torch
import torch.nn.functional as F


def tokens_of_each_node(idx_TK, num_experts, num_nodes):
    hit_TM = F.one_hot(idx_TK // (num_experts // num_nodes), num_nodes).amax(1)
    return hit_TM.sum(0)


def nodes_of_the_batch(idx_TK, num_experts, num_nodes):
    return len({e // (num_experts // num_nodes) for row in idx_TK.tolist() for e in row})


def table_of_visits(idx_TK, num_experts, num_nodes):
    return F.one_hot(idx_TK // (num_experts // num_nodes), num_nodes).amax(1)


def first_node_left_out(idx_TK, num_experts, num_nodes):
    size = num_experts // num_nodes
    return torch.tensor([len({e // size for e in row} - {0}) for row in idx_TK.tolist()])


def every_choice_counted(idx_TK, num_experts, num_nodes):
    return F.one_hot(idx_TK // (num_experts // num_nodes), num_nodes).sum((1, 2))


def only_neighbouring_slots(idx_TK, num_experts, num_nodes):
    size = num_experts // num_nodes
    return torch.tensor([len(torch.unique_consecutive(row // size)) for row in idx_TK])


def dealt_like_cards(idx_TK, num_experts, num_nodes):
    return torch.tensor([len({e % num_nodes for e in row}) for row in idx_TK.tolist()])


def float_counts(idx_TK, num_experts, num_nodes):
    size = num_experts // num_nodes
    return torch.tensor([float(len({e // size for e in row})) for row in idx_TK.tolist()])


def sorted_in_place(idx_TK, num_experts, num_nodes):
    for row in idx_TK:
        row[:] = row.sort().values
    node_TK = idx_TK // (num_experts // num_nodes)
    return 1 + (node_TK.diff(dim=1) != 0).sum(1)
