import torch


def sets(idx_TK, num_experts, num_nodes):
    size = num_experts // num_nodes
    return torch.tensor([len({e // size for e in row}) for row in idx_TK.tolist()])


def sorted_rows(idx_TK, num_experts, num_nodes):
    node_TK = (idx_TK * num_nodes // num_experts).sort(dim=1).values
    return 1 + node_TK.diff(dim=1).ne(0).sum(1)


def any_of_the_block(idx_TK, num_experts, num_nodes):
    chosen_TE = torch.nn.functional.one_hot(idx_TK, num_experts).sum(1)
    return chosen_TE.unflatten(1, (num_nodes, -1)).any(2).sum(1)
