import torch


def unsqueezed(ce_by_label_base_G, ce_by_label_ablated_GE):
    return ce_by_label_ablated_GE - ce_by_label_base_G.unsqueeze(-1).expand_as(ce_by_label_ablated_GE)


def expert_by_expert(ce_by_label_base_G, ce_by_label_ablated_GE):
    columns = [column_G - ce_by_label_base_G for column_G in ce_by_label_ablated_GE.unbind(1)]
    return torch.stack(columns, 1)


def transposed(ce_by_label_base_G, ce_by_label_ablated_GE):
    return (ce_by_label_ablated_GE.T - ce_by_label_base_G).T
