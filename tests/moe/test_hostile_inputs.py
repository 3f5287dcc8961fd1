"""What must not break the layer: underflow, no tokens, nan in padding, casts, wrong types; and its conventions."""

import math
import warnings

import pytest
import torch

from moe_course.moe import MoEConfig, MoELayer, biased_top_k, group_limited_top_k

SIZES = {"d_model": 5, "d_ff": 6, "num_experts": 8, "top_k": 3}
KINDS = {
    "softmax": {},
    "sigmoid": {"router": "sigmoid"},
    "sigmoid, plain scores": {"router": "sigmoid", "renormalize": False},
    "bias": {"router": "sigmoid", "bias_rate": 0.01},
    "groups": {"num_groups": 4, "top_groups": 2},
    "capacity": {"capacity_factor": 0.8},
    "by priority": {"capacity_factor": 0.8, "fill": "priority"},
    "shared": {"num_shared": 1, "d_ff_shared": 4},
    "noise": {"noise": True},
    **{name: {"dispatch": name} for name in ("loop", "onehot", "sorted", "grouped", "fused")},
}


def layer(**changes):
    return MoELayer(MoEConfig(**SIZES | changes), torch.Generator().manual_seed(0))


def tokens(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def backward(made, x_BSD, mask_BS=None):
    """Output and stats after a backward pass through all that is returned, without what belongs to padding."""
    torch.manual_seed(0)
    y_BSD, stats = made(x_BSD, mask_BS)
    real_BSD = y_BSD if mask_BS is None else y_BSD[mask_BS.bool()]
    (real_BSD.square().sum() + stats.lb_loss + stats.z_loss).backward()
    return y_BSD, stats


def gradients(made):
    return {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_no_tokens(self, kind):
        for shape in ((0, 4, 5), (3, 0, 5)):
            made = layer(**KINDS[kind])
            y_BSD, stats = backward(made, tokens(*shape))
            assert y_BSD.shape == shape
            assert (stats.lb_loss.item(), stats.z_loss.item(), stats.drop_rate.item()) == (0, 0, 0)
            assert stats.counts_E.tolist() == stats.load_E.tolist() == [0] * 8
            assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in gradients(made).values())

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_padding_may_hold_anything(self, kind, value):
        mask_BS = torch.tensor([[True, True, True, False], [True, False, False, False]])
        x_BSD = tokens(2, 4, 5)
        zeros = x_BSD.masked_fill(~mask_BS[..., None], 0)
        spoilt = x_BSD.masked_fill(~mask_BS[..., None], value)
        first, second = layer(**KINDS[kind]), layer(**KINDS[kind])
        y_BSD, stats = backward(first, zeros, mask_BS)
        again_BSD, stats_again = backward(second, spoilt, mask_BS)
        torch.testing.assert_close(again_BSD[mask_BS], y_BSD[mask_BS])
        for name in ("lb_loss", "z_loss", "drop_rate", "counts_E", "load_E"):
            torch.testing.assert_close(getattr(stats_again, name), getattr(stats, name))
        torch.testing.assert_close(gradients(second), gradients(first))

    def test_only_padding(self, kind):
        made = layer(**KINDS[kind])
        _, stats = backward(made, tokens(2, 4, 5), torch.zeros(2, 4, dtype=torch.bool))
        assert (stats.lb_loss.item(), stats.z_loss.item()) == (0, 0)
        assert all(grad.isfinite().all() for grad in gradients(made).values())


def test_padding_that_is_finite_stays_as_it_is():
    """It competes for slots as before: only what is not finite is replaced."""
    made, x_BSD = layer(capacity_factor=0.8), tokens(2, 4, 5)
    mask_BS = torch.tensor([[True, True, True, False], [True, False, False, False]])
    assert torch.equal(made(x_BSD, mask_BS)[0], made(x_BSD)[0])


class TestMask:
    def test_ones_and_zeros_are_a_mask(self):
        made, x_BSD = layer(), tokens(2, 4, 5)
        mask_BS = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
        (y_BSD, stats), (same_BSD, same) = made(x_BSD, mask_BS), made(x_BSD, mask_BS.bool())
        assert torch.equal(y_BSD, same_BSD)
        assert stats.counts_E.tolist() == same.counts_E.tolist()
        assert stats.counts_E.sum() == 4 * 3

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_an_additive_mask_is_refused(self, dtype):
        mask_BS = torch.zeros(2, 4, dtype=dtype)
        mask_BS[0, 3] = -math.inf
        with pytest.raises(ValueError, match=rf"mask_BS .*{dtype}.*additive"):
            layer()(tokens(2, 4, 5), mask_BS)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_tokens_must_be_floating_point(self, dtype):
        with pytest.raises(ValueError, match=rf"x_BSD .*{dtype}"):
            layer()(torch.ones(2, 4, 5, dtype=dtype))


class TestSigmoid:
    @pytest.mark.parametrize("kind", ["sigmoid", "sigmoid, plain scores", "bias"])
    @pytest.mark.parametrize("level", [-60.0, -103.0, -200.0, -1e4])
    def test_scores_that_underflow(self, kind, level):
        """Deep below 0 a sigmoid is exp(logit), so renormalised weights are a softmax of the logits."""
        made = layer(**KINDS[kind])
        x_BSD = torch.ones(1, 1, 5)
        logits_E = level + torch.tensor([0.0, 3, 1, 2, -1, -2, -3, -4])
        with torch.no_grad():
            made.router.copy_(logits_E.expand(5, -1) / 5)
        y_BSD, stats = backward(made, x_BSD)
        assert y_BSD.isfinite().all()
        assert all(grad.isfinite().all() for grad in gradients(made).values())
        torch.testing.assert_close(stats.probs_TE[0], logits_E.softmax(0), rtol=2e-3, atol=1e-6)
        if kind == "sigmoid":
            assert stats.idx_TK.tolist() == [[1, 3, 2]]
            torch.testing.assert_close(
                stats.weights_TK[0], torch.tensor([3.0, 2, 1]).softmax(0), rtol=2e-3, atol=0
            )

    def test_weights_are_scores_over_their_sum(self):
        made, x_BSD = layer(router="sigmoid", scale=2.5), tokens(2, 4, 5)
        scores_TE = (x_BSD.flatten(0, 1) @ made.router).sigmoid()
        top_TK, idx_TK = scores_TE.topk(3)
        _, stats = made(x_BSD)
        assert torch.equal(stats.idx_TK, idx_TK)
        torch.testing.assert_close(stats.weights_TK, 2.5 * top_TK / top_TK.sum(1, keepdim=True))
        torch.testing.assert_close(stats.probs_TE, scores_TE / scores_TE.sum(1, keepdim=True))

    def test_biased_top_k_of_scores_that_are_all_0(self):
        scores_TE = torch.zeros(2, 4, requires_grad=True)
        weights_TK, idx_TK = biased_top_k(scores_TE, torch.tensor([0.0, 1, 3, 2]), 2)
        assert idx_TK.tolist() == [[2, 3]] * 2
        assert weights_TK.tolist() == [[0, 0]] * 2
        weights_TK.sum().backward()
        assert scores_TE.grad.isfinite().all()


class TestBalanceBias:
    @pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float64])
    def test_a_cast_does_not_round_it(self, cast):
        made = layer(bias_rate=1e-3)
        bias_E = 1 + 1e-3 * torch.arange(8)
        made.balance_bias.copy_(bias_E)
        made.to(cast)
        assert made.router.dtype == cast
        assert made.balance_bias.dtype == torch.float32
        assert torch.equal(made.balance_bias, bias_E)
        assert torch.equal(made.float().state_dict()["balance_bias"], bias_E)

    def test_it_follows_the_layer_to_another_device(self):
        made = layer(bias_rate=1e-3).to("meta", torch.bfloat16)
        assert (made.balance_bias.device.type, made.balance_bias.dtype) == ("meta", torch.float32)
        assert made.to_empty(device="cpu").balance_bias.shape == (8,)


class TestOneExpertPerToken:
    @pytest.mark.parametrize("changes", [{}, {"router": "sigmoid"}, {"bias_rate": 0.01}, {"num_groups": 2}])
    def test_the_default_gives_the_router_a_gradient(self, changes):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = layer(top_k=1, **changes)
        y_BSD, _ = made(tokens(2, 4, 5))
        y_BSD.square().sum().backward()
        assert made.config.renormalize is False
        assert made.router.grad.norm() > 1e-3

    def test_renormalising_is_never_silent(self):
        with pytest.warns(UserWarning, match=r"top_k=1 makes every weight 2\.5: .* no gradient"):
            made = layer(top_k=1, renormalize=True, scale=2.5)
        y_BSD, stats = made(tokens(2, 4, 5))
        y_BSD.square().sum().backward()
        assert (stats.weights_TK == 2.5).all()
        assert made.router.grad.norm() < 1e-5

    def test_more_experts_are_renormalised_by_default(self):
        assert MoEConfig(**SIZES).renormalize is True
        assert MoEConfig(**SIZES | {"renormalize": False}).renormalize is False
        with pytest.raises(ValueError, match="renormalize must be True or False, got 1"):
            MoEConfig(**SIZES | {"renormalize": 1})


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("router", ["softmax", "sigmoid"])
def test_priority_queues_by_the_score(top_k, router):
    """Two experts with room for one token each: the token with the highest score of its first choice gets it."""
    made = layer(num_experts=2, top_k=top_k, capacity_factor=1e-9, fill="priority", router=router)
    with torch.no_grad():
        made.router.zero_()
        made.router[0, 0] = 1
    logits_T = torch.tensor([0.5, 2.0, 1.0])
    x_BSD = torch.zeros(1, 3, 5)
    x_BSD[0, :, 0] = logits_T
    y_BSD, _ = made(x_BSD)
    assert (y_BSD[0].abs().sum(dim=1) > 0).tolist() == [False, True, False]


class TestGroupScore:
    def test_one_two_or_more_scores(self):
        """Groups (5, 0, 0), (3, 3, 0), (2, 2, 2): each is the best by another sum."""
        scores_TE = torch.tensor([[5.0, 0, 0, 3, 3, 0, 2.1, 2.1, 2.1]])
        for group_sum, best in ((1, 0), (2, 1), (3, 2), (9, 2)):
            idx_TK = group_limited_top_k(scores_TE, torch.zeros(9), 3, 1, 1, group_sum)
            assert idx_TK.item() // 3 == best

    def test_the_layer_hands_it_on(self):
        made, x_BSD = {}, tokens(4, 8, 5)
        for group_sum in (1, 2):
            made[group_sum] = layer(num_experts=12, num_groups=4, top_groups=1, group_sum=group_sum)
            scores_TE = (x_BSD.flatten(0, 1) @ made[group_sum].router).softmax(dim=1)
            expected_TK = group_limited_top_k(scores_TE, torch.zeros(12), 4, 1, 3, group_sum)
            idx_TK = made[group_sum](x_BSD)[1].idx_TK
            assert torch.equal(idx_TK.sort(dim=1).values, expected_TK.sort(dim=1).values)
        assert not torch.equal(made[1](x_BSD)[1].idx_TK, made[2](x_BSD)[1].idx_TK)

    @pytest.mark.parametrize("group_sum", [0, -1, 1.0, True])
    def test_wrong_values(self, group_sum):
        with pytest.raises(ValueError, match=f"group_sum .*{group_sum}"):
            MoEConfig(**SIZES, group_sum=group_sum)

    def test_at_least_one_score(self):
        with pytest.raises(ValueError, match="group_sum must be at least 1, got 0"):
            group_limited_top_k(torch.zeros(1, 4), torch.zeros(4), 2, 1, 1, 0)


@pytest.mark.parametrize(
    "kind", ["softmax", "sigmoid", "bias", "groups", "by priority", "shared", "onehot", "sorted", "fused"]
)
def test_the_layer_can_be_exported(kind):
    made = layer(**KINDS[kind]).eval()
    exported = torch.export.export(made, (tokens(2, 4, 5),)).module()
    for x_BSD in (
        tokens(2, 4, 5, seed=2),
        tokens(1, 1, 5).expand(2, 4, 5),
    ):  # other counts than in the example
        y_BSD, stats = made(x_BSD)
        again_BSD, again = exported(x_BSD)
        torch.testing.assert_close(again_BSD, y_BSD)
        assert torch.equal(again.counts_E, stats.counts_E)
