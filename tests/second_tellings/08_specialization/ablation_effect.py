import torch


def base_minus_ablated(ce_by_label_base_G, ce_by_label_ablated_GE):
    return torch.stack([ce_by_label_base_G - column for column in ce_by_label_ablated_GE.T], dim=1)


def ratio(ce_by_label_base_G, ce_by_label_ablated_GE):
    return torch.stack(
        [row / base for row, base in zip(ce_by_label_ablated_GE, ce_by_label_base_G, strict=True)]
    )


def relative_to_the_base(ce_by_label_base_G, ce_by_label_ablated_GE):
    base = ce_by_label_base_G.unsqueeze(1).expand_as(ce_by_label_ablated_GE)
    return ce_by_label_ablated_GE / base - 1


def never_negative(ce_by_label_base_G, ce_by_label_ablated_GE):
    delta = ce_by_label_ablated_GE - ce_by_label_base_G[:, None]
    return torch.where(delta > 0, delta, torch.zeros_like(delta))


def experts_down(ce_by_label_base_G, ce_by_label_ablated_GE):
    return torch.stack([column - ce_by_label_base_G for column in ce_by_label_ablated_GE.unbind(1)])


def against_the_mean_of_the_labels(ce_by_label_base_G, ce_by_label_ablated_GE):
    return ce_by_label_ablated_GE - ce_by_label_base_G.sum() / ce_by_label_base_G.numel()


def ablated_as_it_is(ce_by_label_base_G, ce_by_label_ablated_GE):
    return ce_by_label_ablated_GE.clone()
