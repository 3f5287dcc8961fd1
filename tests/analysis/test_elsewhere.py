"""A label's own tokens do not explain themselves, and the null of a favourite has its load."""

import pytest
import torch

from moe_course.analysis.elsewhere import distance, equal_sets, left_out


def routes(rule, documents=400):
    """Two labels whose tokens differ in frequency; `rule(token, label)` gives the expert."""
    rng = torch.Generator().manual_seed(1)
    labels_T = torch.arange(documents) % 2
    tokens_T = (torch.rand(documents, generator=rng) < 0.3 + 0.4 * labels_T).long() + 7
    experts = [rule(int(v), int(g)) for v, g in zip(tokens_T, labels_T, strict=True)]
    return torch.tensor(experts)[:, None], labels_T, tokens_T


def test_a_router_that_follows_tokens_leaves_nothing_and_one_that_follows_labels_leaves_all():
    shares_GE, others_GE, expected_GE = left_out(*routes(lambda v, g: v - 7), 2, 2)
    assert distance(shares_GE, others_GE).min() > 0.2
    assert distance(shares_GE, expected_GE).max() < 1e-12
    shares_GE, others_GE, expected_GE = left_out(*routes(lambda v, g: g), 2, 2)
    assert distance(shares_GE, expected_GE).tolist() == [1, 1]
    assert distance(shares_GE, others_GE).tolist() == [1, 1]


def test_by_hand():
    """Token 5 goes to expert 0 under label 0, to experts 0 and 1 under label 1; token 6 belongs to label 1 alone."""
    idx_TK = torch.tensor([[0], [0], [0], [1], [2]])
    labels_T, tokens_T = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([5, 5, 5, 5, 6])
    shares_GE, others_GE, expected_GE = left_out(idx_TK, labels_T, tokens_T, 2, 3)
    assert shares_GE.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert expected_GE.tolist() == [[0.5, 0.5, 0], [1, 0, 0]]
    assert others_GE[1].tolist() == [1, 0, 0]
    assert others_GE[0].tolist() == pytest.approx([1 / 3] * 3)
    assert distance(shares_GE, expected_GE).tolist() == [0.5, 0.5]


def test_sets_of_equal_load():
    share = [0.3, 0.1, 0.2, 0.29, 0.07, 0.04]
    found = equal_sets(share, 0, 50, torch.Generator().manual_seed(0))
    assert {(3,), (1, 2)} <= set(found)
    assert (2, 3) not in found
    assert all(0 not in chosen and 1 <= len(chosen) <= 3 for chosen in found)
    assert all(0.27 - 1e-9 <= sum(share[e] for e in chosen) <= 0.33 + 1e-9 for chosen in found)
    assert len(set(found)) == len(found)
    assert len(equal_sets(share, 0, 2, torch.Generator())) == 2
    assert equal_sets([0.9, 0.05, 0.05], 0, 3, torch.Generator()) == []
