"""Routes are those of each document by itself; a silenced expert comes back, whatever happens."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from moe_course.analysis import routes
from moe_course.analysis.specialization import (
    chance_repeat_rate,
    conditional_mutual_information,
    permutation_null,
    repeat_rate,
)
from moe_course.config import MoEConfig
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer

V, S, E, K, L = 23, 5, 5, 2, 3
LENGTHS, DOMAINS = (4, 1, 11, 2, 17, 6), (0, 1, 1, 2, 1, 0)


def line(lengths=LENGTHS, domains=DOMAINS, seed=0):
    ids_T = torch.randint(V, (sum(lengths),), generator=torch.Generator().manual_seed(seed)).int()
    lengths = torch.tensor(lengths)
    return SimpleNamespace(
        ids_T=ids_T,
        domain_T=torch.tensor(domains, dtype=torch.int8).repeat_interleave(lengths),
        starts=lengths.cumsum(0) - lengths,
        domains=("a", "b", "c"),
    )


def make(seed=0, ffn=None):
    ffn = ffn or MoEConfig(d_model=16, d_ff=8, num_experts=E, top_k=K)
    config = LMConfig(vocab_size=V, d_model=16, num_layers=L, num_heads=2, context=32, ffn=ffn)
    return Transformer(config, torch.Generator().manual_seed(seed))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(actual, expected):
    return all(torch.equal(value, expected[name]) for name, value in actual.items())


def test_windows_of_a_small_line():
    whole = line()
    sample = routes.windows(whole, length=S, per_document=2, documents=2)
    # of domain b every other document: 1, which is too short, and 2, which has two windows
    assert sample.document_B.tolist() == [0, 2, 2, 3, 5]
    for row, (ids, real, document) in enumerate(
        zip(sample.ids_BS1, sample.real_BS, sample.document_B.tolist(), strict=True)
    ):
        count = int(real.sum())
        assert real.tolist() == [True] * count + [False] * (S - count), row
        start, length = int(whole.starts[document]), LENGTHS[document]
        text = whole.ids_T[start : start + length].tolist()
        piece = ids[: count + 1].tolist()
        assert any(text[n : n + count + 1] == piece for n in range(length - count)), "a piece of its document"
    assert sample.domain_B.tolist() == [DOMAINS[document] for document in sample.document_B.tolist()]


def test_enough_windows_cover_every_token_that_has_a_next_one():
    sample = routes.windows(line(), length=S, per_document=99, documents=99)
    assert int(sample.real_BS.sum()) == sum(length - 1 for length in LENGTHS)


def test_windows_are_spread_over_a_document():
    sample = routes.windows(line((40,), (1,)), length=4, per_document=3, documents=1)
    starts = [
        (line((40,), (1,)).ids_T.unfold(0, 5, 1) == row).all(dim=1).nonzero()[0, 0] for row in sample.ids_BS1
    ]
    assert [int(start) for start in starts] == [0, 12, 24]


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_windows_refuse_sizes_below_one(sizes):
    with pytest.raises(ValueError, match=r"at least 1, got \("):
        routes.windows(line(), *sizes)


def test_documents_without_a_pair_of_tokens_are_nothing_to_run():
    with pytest.raises(ValueError, match="none of the 2 documents"):
        routes.windows(line((1, 1), (0, 0)), 4, 1, 1)


def test_routes_are_those_of_each_window_alone():
    """One window at a time, without padding and without the others: the same experts, weights and losses."""
    model, sample = make(), routes.windows(line(), S, 99, 99)
    seen = routes.record_routes(model, sample)
    assert seen.idx_LTK.shape == seen.weights_LTK.shape == (L, int(sample.real_BS.sum()), K)
    assert seen.num_experts == E
    model.eval()
    for window, (ids, real) in enumerate(zip(sample.ids_BS1, sample.real_BS, strict=True)):
        count, mine_T = int(real.sum()), seen.window_T == window
        with torch.no_grad():
            logits_BSV, aux = model(ids[None, :count])
        for layer, stats in enumerate(aux.stats):
            assert torch.equal(seen.idx_LTK[layer, mine_T], stats.idx_TK)
            torch.testing.assert_close(seen.weights_LTK[layer, mine_T], stats.weights_TK)
        loss_T = F.cross_entropy(logits_BSV[0], ids[1 : count + 1], reduction="none")
        torch.testing.assert_close(seen.loss_T[mine_T], loss_T)
        assert seen.token_T[mine_T].tolist() == ids[:count].tolist()
        assert seen.target_T[mine_T].tolist() == ids[1 : count + 1].tolist()
        assert seen.position_T[mine_T].tolist() == list(range(count))
        assert set(seen.document_T[mine_T].tolist()) == {int(sample.document_B[window])}
        assert set(seen.domain_T[mine_T].tolist()) == {int(sample.domain_B[window])}


def test_batches_make_no_difference(monkeypatch):
    model, sample = make(), routes.windows(line(), S, 99, 99)
    whole = routes.record_routes(model, sample)
    monkeypatch.setattr(routes, "BATCH", 2)
    pieces = routes.record_routes(model, sample)
    assert torch.equal(whole.idx_LTK, pieces.idx_LTK)
    torch.testing.assert_close(whole.loss_T, pieces.loss_T)


def test_loss_by_domain_is_the_mean_over_its_tokens():
    model, sample = make(), routes.windows(line(), S, 99, 99)
    seen, loss_G = routes.record_routes(model, sample), routes.loss_by_domain(model, sample)
    for g in range(3):
        torch.testing.assert_close(loss_G[g], seen.loss_T[seen.domain_T == g].double().mean())


def test_a_domain_without_tokens_has_no_loss():
    sample = routes.windows(line((4, 7), (0, 2)), S, 1, 1)
    assert routes.loss_by_domain(make(), sample).isnan().tolist() == [False, True, False]


def test_only_some_windows():
    sample = routes.windows(line(), S, 99, 99)
    keep_B = sample.domain_B == 1
    part = sample.only(keep_B)
    assert len(part.ids_BS1) == len(part.real_BS) == len(part.document_B) == int(keep_B.sum())
    assert part.domain_B.unique().tolist() == [1]


@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(training):
    model, sample = make().train(training), routes.windows(line(), S, 99, 99)
    before = weights(model)
    routes.record_routes(model, sample)
    routes.loss_by_domain(model, sample)
    assert same(weights(model), before)
    assert all(module.training == training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_dense_model_has_no_routes():
    with pytest.raises(ValueError, match="no MoE layer"):
        routes.record_routes(make(ffn=24), routes.windows(line(), S, 1, 9))


def test_a_silenced_expert_answers_nothing_and_nobody_is_rerouted():
    """The layer's output loses exactly what that expert contributed."""
    layer = routes.moe_layers(make())[1]
    x_BSD = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y_BSD, stats = layer(x_BSD)
        x_TD = x_BSD.flatten(0, 1)
        hidden_TF = F.silu(x_TD @ layer.w_gate[3]) * (x_TD @ layer.w_up[3])
        gate_T = (stats.weights_TK * (stats.idx_TK == 3)).sum(dim=1)
        assert gate_T.any(), "somebody chose it"
        with routes.silenced(layer, 0, 3):
            silent_BSD, stats_silent = layer(x_BSD)
    share_TD = gate_T[:, None] * (hidden_TF @ layer.w_down[3])
    torch.testing.assert_close(
        y_BSD.flatten(0, 1) - silent_BSD.flatten(0, 1), share_TD.detach(), atol=1e-6, rtol=1e-5
    )
    assert torch.equal(stats.idx_TK, stats_silent.idx_TK)


def test_only_one_expert_of_one_layer_is_silenced_and_it_comes_back():
    model = make()
    before = weights(model)
    with routes.silenced(model, 2, 4):
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {"blocks.2.ffn.w_down"}
        gap_E = (model.blocks[2].ffn.w_down - before["blocks.2.ffn.w_down"]).abs().amax(dim=(1, 2))
        assert gap_E.nonzero().flatten().tolist() == [4]
        assert not model.blocks[2].ffn.w_down[4].any()
    assert same(weights(model), before)


def test_weights_come_back_after_an_error():
    model = make()
    before = weights(model)
    with pytest.raises(RuntimeError, match="in the middle"), routes.silenced(model, 0, 1):
        raise RuntimeError("in the middle")
    assert same(weights(model), before)


def test_two_silenced_experts_come_back_in_turn():
    model = make()
    before = weights(model)
    with routes.silenced(model, 0, 1), routes.silenced(model, 0, 1), routes.silenced(model, 1, 0):
        pass
    assert same(weights(model), before)


@pytest.mark.parametrize(("layer", "expert"), [(L, 0), (-1, 0), (0, E), (0, -1)])
def test_nobody_to_silence(layer, expert):
    with pytest.raises(ValueError, match="there is no"), routes.silenced(make(), layer, expert):
        pass


def topics(seed):
    """Documents of two domains with different, overlapping vocabularies."""
    draw = torch.Generator().manual_seed(seed)
    lengths, domains = [60] * 40, [n % 2 for n in range(40)]
    whole = line(tuple(lengths), tuple(domains))
    shift_T = 8 * whole.domain_T.int()
    whole.ids_T = (torch.randint(15, whole.ids_T.shape, generator=draw) + shift_T).int()
    return whole


@pytest.mark.parametrize("seed", range(5))
def test_what_the_notebook_says_of_untrained_routers(seed):
    """They treat domains differently, by their tokens alone; and neighbours share experts far beyond chance.

    Here the tokens of a document are drawn independently given the domain, so topic beyond the token is nil in the
    text itself; what attention mixes in is the domain's vocabulary.
    """
    sample = routes.windows(topics(seed), 30, 2, 99)
    seen = routes.record_routes(make(seed), sample)
    draw = torch.Generator().manual_seed(seed)
    found = 0
    for idx_TK in seen.idx_LTK:
        args = seen.domain_T, seen.document_T, 2, E
        observed = conditional_mutual_information(
            idx_TK[:, 0], seen.domain_T, torch.zeros_like(seen.token_T), 2, E
        )
        found += observed > float(permutation_null(idx_TK[:, 0], *args, 99, draw).max())
        whole_T = sample.real_BS.all(dim=1)[seen.window_T]
        idx_BS = idx_TK[whole_T, 0].view(-1, 30)
        assert repeat_rate(idx_BS) > 1.2 * chance_repeat_rate(idx_BS, E)
    assert found >= 2, "of three layers"
