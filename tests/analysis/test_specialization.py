"""Specialisation statistics against slow counts, known distributions and planted effects."""

import math
from collections import Counter
from itertools import permutations

import pytest
import torch

from moe_course.analysis import (
    ablation_effect,
    chance_repeat_rate,
    coactivation,
    conditional_mutual_information,
    conditional_permutation_p_value,
    expected_coactivation,
    mutual_information,
    permutation_null,
    permutation_p_value,
    repeat_rate,
    routing_counts,
    saturation,
    specialization,
)


def seed(number):
    return torch.Generator().manual_seed(number)


def corpus(documents, labels, experts, rng, tokens=(5, 30), vocabulary=6, by_label=0.0):
    """First choices, labels, documents and tokens; a document has a favourite expert, and so may a label."""
    lengths = torch.randint(*tokens, (documents,), generator=rng)
    groups_T = torch.arange(documents).repeat_interleave(lengths)
    label_of = torch.cat([torch.arange(labels), torch.randint(labels, (documents - labels,), generator=rng)])
    favourite_of = torch.randint(experts, (documents,), generator=rng)
    labels_T, idx_T = label_of[groups_T], favourite_of[groups_T]
    stray_T = torch.rand(len(groups_T), generator=rng) < 0.4
    idx_T = torch.where(stray_T, torch.randint(experts, idx_T.shape, generator=rng), idx_T)
    loyal_T = torch.rand(len(groups_T), generator=rng) < by_label
    idx_T = torch.where(loyal_T, labels_T % experts, idx_T)
    return idx_T, labels_T, groups_T, torch.randint(vocabulary, idx_T.shape, generator=rng)


def test_counts_of_a_small_case():
    idx_TK = torch.tensor([[0, 2], [0, 1], [2, 0]])
    counts_GE = routing_counts(idx_TK, torch.tensor([1, 1, 0]), 3, 4)
    assert counts_GE.tolist() == [[1, 0, 1, 0], [2, 1, 1, 0], [0, 0, 0, 0]]
    assert counts_GE.dtype == torch.int64
    assert torch.equal(routing_counts(idx_TK.int(), torch.tensor([1, 1, 0]).int(), 3, 4), counts_GE)


def test_bits_of_known_tables():
    assert mutual_information(torch.eye(8)) == pytest.approx(3)
    assert mutual_information(torch.tensor([[1, 3], [2, 6], [0, 0]])) == pytest.approx(0, abs=1e-12)
    assert mutual_information(torch.tensor([[3, 1], [1, 3]])) == pytest.approx(
        1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)
    )


def test_bits_are_symmetric_and_blind_to_scale_and_empty_rows():
    counts_GE = torch.randint(0, 30, (4, 7), generator=seed(0))
    padded_GE = torch.nn.functional.pad(counts_GE, (1, 2, 0, 3))
    for same in (counts_GE.T, 100 * counts_GE, counts_GE.double(), padded_GE):
        assert mutual_information(same) == pytest.approx(mutual_information(counts_GE), abs=1e-12)


def test_bias_of_the_estimate_is_what_the_docstring_says():
    tokens, labels, experts = 400, 3, 5
    draws = [
        mutual_information(
            routing_counts(
                torch.randint(experts, (tokens, 1), generator=rng),
                torch.randint(labels, (tokens,), generator=rng),
                labels,
                experts,
            )
        )
        for rng in [seed(1)]
        for _ in range(400)
    ]
    assert sum(draws) / len(draws) == pytest.approx(
        (labels - 1) * (experts - 1) / (2 * tokens * math.log(2)), rel=0.1
    )


def test_conditional_bits_are_the_mean_over_tokens():
    idx_T, labels_T, _, tokens_T = corpus(9, 3, 4, seed(2))
    mean = 0.0
    for token, count in Counter(tokens_T.tolist()).items():
        is_T = tokens_T == token
        table_GE = routing_counts(idx_T[is_T, None], labels_T[is_T], 3, 4)
        mean += count / len(idx_T) * mutual_information(table_GE)
    assert conditional_mutual_information(idx_T, labels_T, tokens_T, 3, 4) == pytest.approx(mean)
    ids_T = 1000 * tokens_T - 17  # any integers
    assert conditional_mutual_information(idx_T, labels_T, ids_T, 3, 4) == pytest.approx(mean)


def test_token_identity_explains_what_looks_like_topic():
    """Experts that follow the token alone, and labels that differ in their tokens."""
    rng = seed(3)
    labels_T = torch.arange(2).repeat_interleave(2000)
    tokens_T = torch.randint(10, (4000,), generator=rng) + 5 * labels_T
    idx_T = tokens_T % 3
    assert mutual_information(routing_counts(idx_T[:, None], labels_T, 2, 3)) > 0.001
    assert conditional_mutual_information(idx_T, labels_T, tokens_T, 2, 3) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("given_tokens", [False, True])
def test_null_is_every_order_of_the_labels_alike(given_tokens):
    """Five documents: each of the values under all 120 orders comes up about as often as it should."""
    idx_T, labels_T, groups_T, tokens_T = corpus(5, 2, 3, seed(4), tokens=(3, 12), vocabulary=2)

    def bits(labels_T):
        if given_tokens:
            return conditional_mutual_information(idx_T, labels_T, tokens_T, 2, 3)
        return mutual_information(routing_counts(idx_T[:, None], labels_T, 2, 3))

    labels = [int(labels_T[groups_T == d][0]) for d in range(5)]
    want = Counter(round(bits(torch.tensor(order)[groups_T]), 9) for order in permutations(labels))
    rounds = 12_000
    null_R = permutation_null(
        idx_T, labels_T, groups_T, 2, 3, rounds, seed(5), tokens_T if given_tokens else None
    )
    got = Counter(round(value, 9) for value in null_R.tolist())
    assert got.keys() == want.keys()
    for value, count in want.items():
        assert got[value] / rounds == pytest.approx(count / 120, abs=6 * math.sqrt(count / 120 / rounds))


def test_blocks_of_rounds_give_the_null_of_one_block(monkeypatch):
    args = *corpus(6, 2, 3, seed(6))[:3], 2, 3, 50
    whole_R = permutation_null(*args, seed(7))
    monkeypatch.setattr(specialization, "CELLS_AT_ONCE", 40)
    assert torch.allclose(permutation_null(*args, seed(7)), whole_R)


def test_p_value_is_repeatable_and_of_the_right_form():
    args = *corpus(8, 3, 4, seed(8))[:3], 3, 4, 60
    p = permutation_p_value(*args, seed(9))
    assert p == permutation_p_value(*args, seed(9))
    assert p != permutation_p_value(*args, seed(10))
    assert p * 61 == pytest.approx(round(p * 61))


def test_without_a_round_p_is_one():
    columns = corpus(8, 3, 4, seed(8))[:3]
    assert permutation_p_value(*columns, 3, 4, 0, seed(9)) == 1.0
    with pytest.raises(ValueError, match="-1"):
        permutation_p_value(*columns, 3, 4, -1, seed(9))


def test_two_documents_prove_nothing():
    columns = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1], [7, 7, 7, -8]])
    assert permutation_p_value(*columns, 2, 2, 99, seed(0)) == 1.0
    assert conditional_permutation_p_value(*columns, torch.zeros(4).long(), 2, 2, 99, seed(0)) == 1.0


@pytest.mark.parametrize("given_tokens", [False, True])
def test_p_values_of_true_nulls_are_valid_and_planted_effects_are_found(given_tokens):
    def p_value(rng, by_label):
        *columns, tokens_T = corpus(16, 2, 4, rng, by_label=by_label)
        if given_tokens:
            return conditional_permutation_p_value(*columns, tokens_T, 2, 4, 39, rng)
        return permutation_p_value(*columns, 2, 4, 39, rng)

    rng = seed(11)
    null = [p_value(rng, 0.0) for _ in range(200)]
    assert sum(p <= 0.1 for p in null) <= 20 + 6 * math.sqrt(18)
    assert sum(p <= 0.5 for p in null) == pytest.approx(100, abs=6 * math.sqrt(50))
    planted = [p_value(rng, 0.8) for _ in range(10)]
    assert max(planted) <= 0.1


def test_repeat_rate_and_its_chance():
    idx_BS = torch.tensor([[3, 3, 1, 1, 1], [1, 0, 2, 0, 2]])
    assert repeat_rate(idx_BS) == 3 / 8
    assert chance_repeat_rate(idx_BS, 4) == pytest.approx(0.2**2 + 0.4**2 + 0.2**2 + 0.2**2)
    many_BS = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 40_000, replacement=True, generator=seed(12))
    assert repeat_rate(many_BS.view(40, 1000)) == pytest.approx(
        chance_repeat_rate(many_BS.view(40, 1000), 3), abs=0.02
    )


def test_coactivation_counts_sets():
    idx_TK = torch.stack([torch.randperm(7, generator=seed(n))[:4] for n in range(50)])
    counts_EE = coactivation(idx_TK, 9)
    sets = [set(row) for row in idx_TK.tolist()]
    for a in range(9):
        for b in range(9):
            assert counts_EE[a, b] == (0 if a == b else sum({a, b} <= chosen for chosen in sets))
    assert torch.equal(coactivation(idx_TK.flip(1), 9), counts_EE)
    assert torch.equal(coactivation(idx_TK[:, :1], 9), torch.zeros(9, 9, dtype=torch.int64))


def test_expected_coactivation_has_the_rows_of_the_observed_and_finds_a_planted_pair():
    rng = seed(13)
    liked_E = torch.tensor([4.0, 3.0, 2.0, 2.0, 1.0, 1.0, 0.0])
    idx_TK = torch.multinomial(liked_E.expand(20_000, 7), 2, generator=rng)
    observed_EE, expected_EE = coactivation(idx_TK, 7).double(), expected_coactivation(idx_TK, 7)
    assert torch.equal(expected_EE, expected_EE.T)
    assert torch.equal(expected_EE.diagonal(), torch.zeros(7, dtype=torch.float64))
    assert torch.allclose(expected_EE.sum(dim=1), observed_EE.sum(dim=1))
    together = idx_TK[:, 0] == 4
    idx_TK[together, 1] = 5  # whoever takes 4 first takes 5 as well
    ratio_EE = coactivation(idx_TK, 7) / expected_coactivation(idx_TK, 7)
    assert ratio_EE[4, 5] > 2
    assert ratio_EE[0, 1] < 1.5


def test_expected_coactivation_of_even_loads_is_even():
    idx_TK = (torch.arange(60)[:, None] + torch.tensor([0, 1, 3])) % 6
    expected_EE = expected_coactivation(idx_TK, 6)
    assert expected_EE[0, 1].item() == pytest.approx(60 * 3 * 2 / (6 * 5))
    assert torch.equal(expected_coactivation(idx_TK[:, :1], 6), torch.zeros(6, 6, dtype=torch.float64))


def test_expected_coactivation_where_everybody_takes_one_expert():
    """No table with all these rows has other pairs than those of expert 0: the fit comes close."""
    expected_EE = expected_coactivation(torch.tensor([[0, 1], [0, 2], [0, 3], [0, 1]]), 4)
    assert expected_EE[0].tolist() == pytest.approx([0, 2, 1, 1], abs=0.01)
    assert expected_EE[1:, 1:].sum() < 0.02


def test_saturation_compares_sets():
    idx_TK = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert saturation(idx_TK, idx_TK.flip(1)) == 1.0
    assert saturation(idx_TK, torch.tensor([[2, 0, 7], [0, 1, 2]])) == pytest.approx(2 / 6)


def test_ablation_effect_goes_along_the_labels():
    base_G = torch.tensor([2.0, 3.0], dtype=torch.float64)
    ablated_GE = torch.tensor([[2.5, 2.0], [3.0, 2.75]], dtype=torch.float64)
    assert ablation_effect(base_G, ablated_GE).tolist() == [[0.5, 0.0], [0.0, -0.25]]


IDX_T = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (lambda: routing_counts(torch.tensor([[0], [4]]), torch.tensor([0, 0]), 1, 4), "0..4"),
        (lambda: routing_counts(torch.tensor([[0], [1]]), torch.tensor([0, 2]), 2, 4), "0..2"),
        (lambda: routing_counts(IDX_T, IDX_T, 2, 2), "idx_TK"),
        (lambda: routing_counts(IDX_T[:, None], IDX_T[:2], 2, 2), "T = 2"),
        (lambda: mutual_information(torch.zeros(2, 3)), "0.0"),
        (lambda: mutual_information(torch.tensor([[2, -1]])), "-1"),
        (lambda: permutation_null(IDX_T, IDX_T, IDX_T, 2, 2, -1, seed(0)), "got -1"),
        (lambda: permutation_null(IDX_T, IDX_T, torch.tensor([5, 6, 5]), 2, 2, 9, seed(0)), "document 5"),
        (lambda: permutation_null(IDX_T, IDX_T, IDX_T, 2, 2, 9, seed(0), IDX_T[:2]), "T = 2"),
        (lambda: repeat_rate(torch.zeros(3, 1)), "(3, 1)"),
        (lambda: chance_repeat_rate(torch.tensor([[0, 3]]), 3), "0..3"),
        (lambda: coactivation(torch.tensor([[0, -1]]), 3), "-1..0"),
        (lambda: coactivation(torch.tensor([[0, 1]]), 0), "got 0"),
        (lambda: coactivation(torch.zeros(0, 2), 3), "(0, 2)"),
        (lambda: saturation(torch.zeros(2, 3), torch.zeros(2, 2)), "K = 2"),
        (lambda: ablation_effect(torch.zeros(3), torch.zeros(2, 3)), "G = 2"),
    ],
)
def test_bad_input_is_named(broken, named):
    with pytest.raises(ValueError, match=named.replace("(", r"\(").replace(")", r"\)")):
        broken()
