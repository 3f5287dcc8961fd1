"""What did the experts learn? Counts of routing by label, and the null models that a claim must be compared with.

All of this is computed from recorded choices, not during training, so values may be read on the host. Statistics are
Python floats. Experts and labels may be int32 or int64; values out of range raise ValueError.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from moe_course.moe.counts import expert_counts
from moe_course.shapes import check_axes

TIE = 1e-9  # bits: two sums over the same table in another order differ by less
CELLS_AT_ONCE = 2**22  # cells of the tables in one block of rounds: tens of megabytes


def routing_counts(idx_TK: Tensor, labels_T: Tensor, num_labels: int, num_experts: int) -> Tensor:
    """How many of the assignments of each label's tokens went to each expert: counts_GE, int64.

    Every one of the K choices counts, so a label's row sums to K times its tokens.
    """
    check_axes(idx_TK=idx_TK, labels_T=labels_T)
    _check_range("idx_TK", idx_TK, num_experts, "num_experts")
    _check_range("labels_T", labels_T, num_labels, "num_labels")
    cells_TK = labels_T.long()[:, None] * num_experts + idx_TK.long()
    return cells_TK.flatten().bincount(minlength=num_labels * num_experts).view(num_labels, num_experts)


def mutual_information(counts_GE: Tensor) -> float:
    """How many bits of information label and expert give about each other: I(G; E) of the counts.

    This plug-in estimate is biased upwards: chance alone gives more than 0. For N independent tokens it gives
    about (G − 1)(E − 1)/(2N ln 2) bits, because 2N ln 2 · I is the likelihood-ratio statistic, chi-squared in the
    limit. If the tokens of a document are alike, chance gives far more. Hence `permutation_null`.
    Raises ValueError for negative counts, and if all counts are 0.
    """
    check_axes(counts_GE=counts_GE)
    if bool((counts_GE < 0).any()) or not counts_GE.sum() > 0:
        raise ValueError(f"counts_GE must be counts, not all 0, got {counts_GE.tolist()}")
    return _bits(counts_GE.double()).item()


def conditional_mutual_information(
    idx_T: Tensor, labels_T: Tensor, tokens_T: Tensor, num_labels: int, num_experts: int
) -> float:
    """Bits that label and expert share when the token is known: I(E; G | V) = Σ_v p(v) · I(E; G | token v).

    It is about 0 if the label matters only because other labels have other tokens. Tokens are ids, any integers. Rare
    tokens inflate the plug-in estimate, so compare it only with `permutation_null(..., tokens_T=tokens_T)`.
    """
    check_axes(idx_T=idx_T, labels_T=labels_T, tokens_T=tokens_T)
    _check_range("labels_T", labels_T, num_labels, "num_labels")
    kinds, token_T = tokens_T.unique(return_inverse=True)
    cell_T = token_T * num_labels + labels_T.long()
    counts = routing_counts(idx_T[:, None], cell_T, len(kinds) * num_labels, num_experts).double()
    counts_VGE = counts.view(len(kinds), num_labels, num_experts)
    return float(counts_VGE.sum(dim=(1, 2)) @ _bits(counts_VGE)) / len(idx_T)


def permutation_p_value(
    idx_T: Tensor,
    labels_T: Tensor,
    groups_T: Tensor,
    num_labels: int,
    num_experts: int,
    rounds: int,
    generator: torch.Generator,
) -> float:
    """How often labels that are shuffled between documents share as many bits with the experts: a p-value in (0, 1].

    (1 + #{null ≥ observed}) / (1 + rounds), never 0: the labels as they are count as one of the shuffles. Without a
    round nothing is known, and p is 1.
    Source: Phipson and Smyth 2010, arXiv 1603.05766. The null is that of `permutation_null`.
    """
    observed = mutual_information(routing_counts(idx_T[:, None], labels_T, num_labels, num_experts))
    null_R = permutation_null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator)
    return _p_value(null_R, observed)


def conditional_permutation_p_value(
    idx_T: Tensor,
    labels_T: Tensor,
    groups_T: Tensor,
    tokens_T: Tensor,
    num_labels: int,
    num_experts: int,
    rounds: int,
    generator: torch.Generator,
) -> float:
    """The p-value of `conditional_mutual_information`, against the same shuffles between documents."""
    observed = conditional_mutual_information(idx_T, labels_T, tokens_T, num_labels, num_experts)
    null_R = permutation_null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator, tokens_T)
    return _p_value(null_R, observed)


def permutation_null(
    idx_T: Tensor,
    labels_T: Tensor,
    groups_T: Tensor,
    num_labels: int,
    num_experts: int,
    rounds: int,
    generator: torch.Generator,
    tokens_T: Tensor | None = None,
) -> Tensor:
    """Mutual information under the hypothesis that labels have no influence on routing: null_R, bits, float64.

    R counts rounds here. Each round permutes the labels of the documents `groups_T` (ids, any integers), and all
    tokens of a document keep one label. The tokens of a document are alike and therefore not exchangeable: shuffling
    them one by one would reject nearly every true null hypothesis. With `tokens_T` the statistic is I(E; G | token).
    Raises ValueError for a negative number of rounds, and for a document with two labels.
    """
    check_axes(idx_T=idx_T, labels_T=labels_T, groups_T=groups_T)
    _check_range("idx_T", idx_T, num_experts, "num_experts")
    _check_range("labels_T", labels_T, num_labels, "num_labels")
    if rounds < 0:
        raise ValueError(f"rounds cannot be negative, got {rounds}")
    ids, document_T = groups_T.unique(return_inverse=True)
    labels = _label_of_each(ids, document_T, labels_T)  # (documents,)

    tokens_T = torch.zeros_like(document_T) if tokens_T is None else tokens_T.unique(return_inverse=True)[1]
    check_axes(idx_T=idx_T, tokens_T=tokens_T)
    pair_T = (tokens_T * num_experts + idx_T).unique(return_inverse=True)[1]  # only pairs that occur
    by_pair, by_token = _table(document_T, pair_T), _table(document_T, tokens_T)  # (documents, kinds)
    fixed = _x_log_x(by_token.sum(dim=0)).sum() - _x_log_x(by_pair.sum(dim=0)).sum()

    bits = [fixed.new_zeros(0)]
    for block in _blocks(rounds, num_labels * by_pair.shape[1]):
        shuffled = labels[_permutations(block, len(labels), generator).to(labels.device)]
        has_label = (shuffled[:, None, :] == torch.arange(num_labels, device=labels.device)[:, None]).double()
        # N·I = Σ c_gve log c_gve − Σ c_gv log c_gv + what no permutation of the labels can change
        moving = [_x_log_x(has_label @ counts).sum(dim=(1, 2)) for counts in (by_pair, by_token)]
        bits.append((moving[0] - moving[1] + fixed) / len(idx_T))
    return torch.cat(bits).clamp(min=0)


def repeat_rate(idx_BS: Tensor) -> float:
    """Share of the neighbours in a sequence, B·(S − 1) pairs, whose first choice is the same expert.

    Compare it with `chance_repeat_rate`. Source: Mixtral of Experts, arXiv 2401.04088, table 5 ("first choice").
    Raises ValueError if no token has a neighbour.
    """
    sizes = check_axes(idx_BS=idx_BS)
    if sizes["B"] < 1 or sizes["S"] < 2:
        raise ValueError(f"idx_BS needs two positions for neighbours, got {tuple(idx_BS.shape)}")
    return (idx_BS[:, 1:] == idx_BS[:, :-1]).double().mean().item()


def chance_repeat_rate(idx_BS: Tensor, num_experts: int) -> float:
    """The repeat rate of tokens that draw independently from the load p: Σ p_e², which is 1/E only when balanced."""
    check_axes(idx_BS=idx_BS)
    _check_range("idx_BS", idx_BS, num_experts, "num_experts")
    load_E = expert_counts(idx_BS.reshape(-1, 1), num_experts).double() / idx_BS.numel()
    return (load_E**2).sum().item()


def coactivation(idx_TK: Tensor, num_experts: int) -> Tensor:
    """How many tokens chose both of two experts: counts_EE, int64, symmetric, the diagonal 0.

    A row sums to K − 1 times the tokens of its expert.
    """
    chosen_TE = _chosen(idx_TK, num_experts)
    return (chosen_TE.T @ chosen_TE).long().fill_diagonal_(0)


def expected_coactivation(idx_TK: Tensor, num_experts: int) -> Tensor:
    """Co-activation if partners were chosen by load alone: counts_EE, float64, symmetric, the diagonal 0.

    It is the table a_e · a_f off the diagonal whose rows have the same sums as in `coactivation`, K − 1 times the
    tokens of the expert (quasi-independence). Plain independence, T · q_e · q_f with q_e the share of tokens that
    chose e, lets a token choose an expert twice, and so expects more pairs than there are.
    """
    tokens_E = _chosen(idx_TK, num_experts).sum(dim=0)
    rows_E = tokens_E * (idx_TK.shape[1] - 1)
    a_E = rows_E.sqrt()
    for _ in range(2_000):
        others_E = (a_E.sum() - a_E).clamp(min=1e-300)
        step_E = rows_E / (a_E * others_E).clamp(min=1e-300)
        a_E = a_E * step_E.sqrt()  # half a step: with whole steps the values would swing for ever
        if bool((step_E - 1).abs()[rows_E > 0].le(1e-10).all()):
            break
    return torch.outer(a_E, a_E).fill_diagonal_(0)


def saturation(idx_early_TK: Tensor, idx_late_TK: Tensor) -> float:
    """Share of a token's K experts that it still has later, as a mean over tokens, whatever the order of slots.

    Two unrelated balanced routers agree on K/E. Source: OLMoE, arXiv 2409.02060, section 5.1, and the authors'
    scripts/run_moe_analysis.py in allenai/OLMoE (8eb1b3d): |early ∩ final| / K.
    """
    check_axes(idx_early_TK=idx_early_TK, idx_late_TK=idx_late_TK)
    return (idx_early_TK[:, :, None] == idx_late_TK[:, None, :]).any(dim=2).double().mean().item()


def ablation_effect(ce_by_label_base_G: Tensor, ce_by_label_ablated_GE: Tensor) -> Tensor:
    """Rise of each label's loss when one expert's output is zeroed, without rerouting: delta_GE, ablated − base.

    Positive means that the label needed the expert. Same unit as the losses.
    """
    check_axes(ce_by_label_base_G=ce_by_label_base_G, ce_by_label_ablated_GE=ce_by_label_ablated_GE)
    return ce_by_label_ablated_GE - ce_by_label_base_G[:, None]


def _bits(counts: Tensor) -> Tensor:
    """Mutual information of each table (..., G, E) of counts, float64; 0 for a table of zeros. 0 · log 0 is 0."""
    whole = _x_log_x(counts.sum(dim=(-2, -1)))
    joint = _x_log_x(counts).sum(dim=(-2, -1))
    rows, columns = (_x_log_x(counts.sum(dim=dim)).sum(dim=-1) for dim in (-1, -2))
    return ((whole + joint - rows - columns) / counts.sum(dim=(-2, -1)).clamp(min=1e-300)).clamp(min=0)


def _x_log_x(values: Tensor) -> Tensor:
    return torch.xlogy(values, values) / math.log(2)


def _p_value(null_R: Tensor, observed: float) -> float:
    return (1 + int((null_R >= observed - TIE).sum())) / (1 + len(null_R))


def _label_of_each(ids: Tensor, document_T: Tensor, labels_T: Tensor) -> Tensor:
    """The label of every document. Raises ValueError naming a document that has two."""
    labels = labels_T.long().new_zeros(len(ids)).scatter(0, document_T, labels_T.long())
    if bool((two_T := labels[document_T] != labels_T).any()):
        raise ValueError(f"document {int(ids[document_T[two_T][0]])} has tokens of more than one label")
    return labels


def _table(row_T: Tensor, column_T: Tensor) -> Tensor:
    """How many tokens fall in each (row, column), float64."""
    rows, columns = int(row_T.max()) + 1, int(column_T.max()) + 1
    return (row_T * columns + column_T).bincount(minlength=rows * columns).double().view(rows, columns)


def _permutations(rounds: int, length: int, generator: torch.Generator) -> Tensor:
    keys = torch.rand(rounds, length, generator=generator, device=generator.device, dtype=torch.float64)
    return keys.argsort(dim=1)


def _blocks(rounds: int, cells: int) -> Iterator[int]:
    """Numbers of rounds that sum to `rounds`, each so small that its tables of `cells` cells fit into memory."""
    size = max(1, CELLS_AT_ONCE // cells)
    for start in range(0, rounds, size):
        yield min(size, rounds - start)


def _chosen(idx_TK: Tensor, num_experts: int) -> Tensor:
    """1 where a token chose an expert, float64 (T, E)."""
    check_axes(idx_TK=idx_TK)
    _check_range("idx_TK", idx_TK, num_experts, "num_experts")
    return idx_TK.new_zeros(len(idx_TK), num_experts, dtype=torch.float64).scatter(1, idx_TK.long(), 1.0)


def _check_range(name: str, values: Tensor, size: int, what: str) -> None:
    if size < 1:
        raise ValueError(f"{what} must be at least 1, got {size}")
    if not values.numel():
        raise ValueError(f"{name} is empty, shape {tuple(values.shape)}")
    if bool(((values < 0) | (values >= size)).any()):
        raise ValueError(f"{name} must be in 0..{size - 1}, got {int(values.min())}..{int(values.max())}")
