"""The configurable layer: what each option does, and what holds whatever the options are."""

import dataclasses
import itertools

import pytest
import torch

from moe_course.moe import (
    MoEConfig,
    MoELayer,
    MoEStats,
    load_balancing_loss,
    moe_loop,
    router_z_loss,
    swiglu_ffn,
    top_k_gate,
)

B, S, D, F, E, K = 2, 3, 8, 12, 7, 4

OPTIONS = {
    "as it stands": {},
    "not renormalised": {"renormalize": False},
    "sigmoid": {"router": "sigmoid"},
    "noise": {"noise": True},
    "scaled": {"scale": 2.5, "router": "sigmoid"},
    "bias": {"bias_rate": 0.25},
    "groups": {"num_experts": 6, "top_k": 3, "num_groups": 3, "top_groups": 2},
    "shared": {"num_shared": 2, "d_ff_shared": 5},
    "capacity": {"capacity_factor": 0.7},
    "token by token": {"capacity_factor": 0.7, "fill": "token"},
    "by priority": {"capacity_factor": 0.7, "fill": "priority"},
    "loop": {"dispatch": "loop"},
    "onehot": {"dispatch": "onehot"},
    "sorted": {"dispatch": "sorted"},
    "grouped": {"dispatch": "grouped"},
    "one expert": {"num_experts": 1, "top_k": 1},
    "all experts": {"num_experts": 4},
}


def config(**options):
    return MoEConfig(**{**dict(d_model=D, d_ff=F, num_experts=E, top_k=K), **options})


def layer(seed=0, **options):
    """A layer whose router has opinions (it starts out nearly indifferent)."""
    made = MoELayer(config(**options), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        made.router.mul_(20)
    return made


def inputs(seed=1, shape=(B, S, D), dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def every_gradient(made, x_BSD, mask_BS=None):
    """y, the statistics and the gradient of each parameter and of x, by name."""
    torch.manual_seed(5)  # the router's noise
    x_BSD = x_BSD.detach().requires_grad_()
    y_BSD, stats = made(x_BSD, mask_BS)
    (y_BSD.float().square().sum() + stats.lb_loss + stats.z_loss).backward()
    made_of = getattr(made, "_orig_mod", made)  # the layer inside a compiled one
    gradients = {f"gradient of {name}": p.grad for name, p in made_of.named_parameters()}
    made.zero_grad()
    return {"y_BSD": y_BSD.detach(), **vars(stats), **gradients, "gradient of x": x_BSD.grad}


def same(actual, expected, rtol=2e-5):
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        size = expected[name].abs().max().item()
        torch.testing.assert_close(
            value.double(),
            expected[name].double(),
            rtol=0,
            atol=rtol * size,
            msg=lambda t, n=name: f"{n}: {t}",
        )


class TestConfig:
    def test_is_frozen_and_keyword_only(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config().top_k = 3
        with pytest.raises(TypeError):
            MoEConfig(8, 12, 7, 4)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"d_model": 0}, "d_model must be an int of at least 1, got 0"),
            ({"d_ff": -3}, "d_ff .* got -3"),
            ({"num_experts": 7.0}, r"num_experts .* got 7\.0"),
            ({"top_k": 0}, "top_k .* got 0"),
            ({"top_k": 8}, "top_k = 8 experts cannot be chosen out of 7"),
            ({"top_k": True}, "top_k .* got True"),
            ({"router": "hash"}, "router must be one of .*softmax.*got 'hash'"),
            ({"fill": "random"}, "fill must be one of .*choice.*got 'random'"),
            ({"dispatch": "fast"}, "dispatch must be one of .*grouped.*got 'fast'"),
            ({"renormalize": 1}, "renormalize must be True or False, got 1"),
            ({"noise": 0.1}, r"noise must be True or False, got 0\.1"),
            ({"scale": 0.0}, r"scale must be positive, got 0\.0"),
            ({"bias_rate": -0.001}, r"bias_rate must not be negative, got -0\.001"),
            ({"capacity_factor": 0}, "capacity_factor must be positive, or None, got 0"),
            ({"capacity_factor": float("nan")}, "capacity_factor .* got nan"),
            ({"capacity_factor": 1.25, "dispatch": "loop"}, r"dispatch = 'loop' .* capacity_factor is 1\.25"),
            ({"num_shared": 1}, "d_ff_shared .* got 0"),
            ({"num_shared": -1}, "num_shared .* got -1"),
            ({"num_groups": 3}, "7 experts do not divide into 3 groups"),
            ({"num_experts": 6, "num_groups": 3, "top_groups": 4}, "top_groups = 4 .* num_groups = 3"),
            ({"num_experts": 6, "num_groups": 3, "top_groups": 1}, "top_k = 4 experts .* out of 2"),
        ],
    )
    def test_an_error_names_the_values(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            config(**options)


class TestParameters:
    def test_names_and_shapes(self):
        made = MoELayer(config(noise=True, bias_rate=0.1, num_shared=2, d_ff_shared=5))
        assert {name: tuple(value.shape) for name, value in made.state_dict().items()} == {
            "router": (D, E),
            "router_noise": (D, E),
            "w_gate": (E, D, F),
            "w_up": (E, D, F),
            "w_down": (E, F, D),
            "shared_gate": (D, 10),
            "shared_up": (D, 10),
            "shared_down": (10, D),
            "balance_bias": (E,),
        }
        assert "balance_bias" not in dict(made.named_parameters())

    def test_there_are_no_more_than_the_config_asks_for(self):
        assert set(MoELayer(config()).state_dict()) == {"router", "w_gate", "w_up", "w_down"}

    def test_a_seed_gives_the_same_layer_and_the_same_noise(self):
        runs = []
        for _ in range(2):
            torch.manual_seed(7)
            made = MoELayer(config(noise=True))
            runs.append({**every_gradient(made, inputs()), **made.state_dict()})
        assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])

    def test_a_generator_decides_instead_of_the_global_seed(self):
        first, second = (layer(seed=3).state_dict() for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(layer(seed=4).router, layer(seed=3).router)

    def test_routing_starts_out_almost_even(self):
        made = MoELayer(config(), torch.Generator().manual_seed(0))
        _, stats = made(inputs(shape=(20, 50, D)))
        assert (stats.probs_TE * E - 1).abs().mean() < 0.2


class TestForward:
    def test_is_the_parts_put_together(self):
        made, x_BSD = layer(), inputs()
        y_BSD, stats = made(x_BSD)
        x_TD = x_BSD.flatten(0, 1)
        logits_TE = x_TD @ made.router
        weights_TK, idx_TK = top_k_gate(logits_TE.softmax(-1), K)
        y_TD = moe_loop(x_TD, weights_TK, idx_TK, made.w_gate, made.w_up, made.w_down)
        torch.testing.assert_close(y_BSD, y_TD.view(B, S, D))
        torch.testing.assert_close(stats.weights_TK, weights_TK)
        assert torch.equal(stats.idx_TK, idx_TK)
        torch.testing.assert_close(stats.lb_loss, load_balancing_loss(logits_TE.softmax(-1), idx_TK))
        torch.testing.assert_close(stats.z_loss, router_z_loss(logits_TE))
        assert stats.counts_E.tolist() == [(idx_TK == e).sum() for e in range(E)]
        torch.testing.assert_close(stats.load_E, stats.counts_E / (B * S * K))
        assert stats.drop_rate == 0

    def test_statistics_are_frozen_tensors(self):
        _, stats = layer()(inputs())
        assert isinstance(stats, MoEStats)
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.lb_loss = 0
        for name in ("lb_loss", "z_loss", "drop_rate"):
            assert getattr(stats, name).shape == ()
        assert [name for name, value in vars(stats).items() if not isinstance(value, torch.Tensor)] == []

    @pytest.mark.parametrize("dispatch", ["loop", "onehot", "sorted", "grouped"])
    def test_every_dispatch_gives_the_same(self, dispatch):
        same(
            every_gradient(layer(dispatch=dispatch), inputs()),
            every_gradient(layer(dispatch="loop"), inputs()),
        )

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_every_parameter_gets_a_finite_gradient(self, options):
        results = every_gradient(layer(**options), inputs())
        # One expert has probability 1 whatever its logit; its router has the z-loss alone to learn from.
        for name, value in results.items():
            assert value.isfinite().all(), name
            if name.startswith("gradient"):
                assert value.any(), name

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_weights_come_in_descending_order_and_experts_once(self, options):
        _, stats = layer(**options)(inputs())
        assert (stats.weights_TK.diff(dim=1) <= 0).all()
        assert all(len(set(row)) == len(row) for row in stats.idx_TK.tolist())

    def test_weights_sum_to_the_scale_when_renormalised(self):
        for options in ({}, {"router": "sigmoid"}, {"bias_rate": 0.1}):
            _, stats = layer(scale=2.5, **options)(inputs())
            torch.testing.assert_close(stats.weights_TK.sum(1), torch.full((B * S,), 2.5))

    def test_sigmoid_scores_are_normalised_for_the_loss(self):
        """DeepSeek-V3, arXiv 2412.19437, equation 19; the balance of scores that are all 1/2 is then 1."""
        made = layer(router="sigmoid")
        _, stats = made(inputs())
        scores_TE = (inputs().flatten(0, 1) @ made.router).sigmoid()
        torch.testing.assert_close(stats.probs_TE, scores_TE / scores_TE.sum(1, keepdim=True))
        torch.nn.init.zeros_(made.router)
        assert made(inputs())[1].lb_loss.item() == pytest.approx(1.0)

    def test_weights_are_the_scores_when_not(self):
        made = layer(router="sigmoid", renormalize=False)
        _, stats = made(inputs())
        scores_TE = (inputs().flatten(0, 1) @ made.router).sigmoid()
        torch.testing.assert_close(stats.weights_TK, scores_TE.topk(K).values)

    def test_shared_experts_see_every_token_and_add_up(self):
        made, x_BSD = layer(num_shared=2, d_ff_shared=5), inputs()
        plain = layer()
        plain.load_state_dict({name: made.state_dict()[name] for name in plain.state_dict()})
        expected = plain(x_BSD)[0]
        for half in (slice(0, 5), slice(5, 10)):  # side by side they are two experts of width 5
            weights = (made.shared_gate[:, half], made.shared_up[:, half], made.shared_down[half])
            expected = expected + swiglu_ffn(x_BSD.flatten(0, 1), *weights).view_as(x_BSD)
        torch.testing.assert_close(made(x_BSD)[0], expected)

    def test_groups_keep_a_token_within_its_best(self):
        made = layer(num_experts=12, top_k=3, num_groups=4, top_groups=2, router="sigmoid")
        x_BSD = inputs(shape=(4, 10, D))
        _, stats = made(x_BSD)
        scores_TE = (x_BSD.flatten(0, 1) @ made.router).sigmoid()
        for scores, chosen in zip(scores_TE.tolist(), stats.idx_TK.tolist(), strict=True):
            groups = [sorted(scores[g : g + 3])[-2:] for g in range(0, 12, 3)]
            best = sorted(range(4), key=lambda g: -sum(groups[g]))[:2]
            allowed = [e for e in range(12) if e // 3 in best]
            assert set(chosen) == set(sorted(allowed, key=lambda e: -scores[e])[:3])

    def test_noise_moves_the_choice_in_training_only(self):
        made, x_BSD = layer(noise=True), inputs(shape=(4, 50, D))
        choices = [made(x_BSD)[1].idx_TK for _ in range(2)]
        assert not torch.equal(*choices)
        made.eval()
        plain = layer()
        plain.load_state_dict({name: made.state_dict()[name] for name in plain.state_dict()})
        assert torch.equal(made(x_BSD)[1].idx_TK, plain(x_BSD)[1].idx_TK)

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_the_input_may_have_any_strides_and_stays_as_it_was(self, options):
        made = layer(**options)
        x_BSD = inputs(shape=(S, D, B)).permute(2, 0, 1)
        assert not x_BSD.is_contiguous()
        before = x_BSD.clone()
        same(every_gradient(made, x_BSD), every_gradient(made, x_BSD.contiguous()))
        assert torch.equal(x_BSD, before)

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_forward_leaves_the_layer_as_it_was(self, options):
        made = layer(**options)
        before = {name: value.clone() for name, value in made.state_dict().items()}
        every_gradient(made, inputs())
        assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())

    def test_expert_names_are_arbitrary(self):
        made, other = layer(), layer()
        order_E = torch.tensor([4, 2, 0, 6, 1, 5, 3])
        with torch.no_grad():
            other.router.copy_(made.router[:, order_E])
            for name in ("w_gate", "w_up", "w_down"):
                getattr(other, name).copy_(getattr(made, name)[order_E])
        (y_BSD, stats), (moved_BSD, moved) = made(inputs()), other(inputs())
        torch.testing.assert_close(moved_BSD, y_BSD)
        torch.testing.assert_close(moved.lb_loss, stats.lb_loss)
        assert torch.equal(moved.counts_E, stats.counts_E[order_E])

    def test_a_dropless_layer_treats_tokens_one_by_one(self):
        made, x_BSD = layer(), inputs()
        alone = [made(x_BSD[b : b + 1, s : s + 1])[0] for b in range(B) for s in range(S)]
        torch.testing.assert_close(made(x_BSD)[0].view(B * S, 1, 1, D), torch.stack(alone))


def test_the_loss_is_that_of_megatron():
    """E · Σ_e counts_e · (Σ_t p_te) / (K·T²), from sums instead of means, and K in the denominator.

    Source: NVIDIA/Megatron-LM at 00611e6, megatron/core/transformer/moe/moe_utils.py, the docstring of
    switch_load_balancing_loss_func, with a coefficient of 1.
    """
    made, x_BSD = layer(), inputs(shape=(3, 9, D))
    _, stats = made(x_BSD)
    summed_E = stats.probs_TE.sum(dim=0)
    expected = E * (stats.counts_E * summed_E).sum() / (K * 27**2)
    torch.testing.assert_close(stats.lb_loss, expected)


class TestPadding:
    def test_mask_and_input_must_fit_the_layer(self):
        with pytest.raises(ValueError, match="x_BSD has D = 9, expected 8"):
            layer()(inputs(shape=(B, S, 9)))
        with pytest.raises(ValueError, match="x_BSD needs 3 axes"):
            layer()(inputs(shape=(S, D)))
        with pytest.raises(ValueError, match="mask_BS has S = 4, expected 3"):
            layer()(inputs(), torch.ones(B, 4, dtype=torch.bool))

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_counts_neither_in_losses_nor_in_load(self, options):
        made, x_BSD = layer(**options).eval(), inputs(shape=(1, 6, D))
        mask_BS = torch.tensor([[True, True, False, True, False, True]])
        _, padded = made(x_BSD, mask_BS)
        _, short = made(x_BSD[:, mask_BS[0]])
        for name in ("lb_loss", "z_loss", "counts_E", "load_E"):
            torch.testing.assert_close(getattr(padded, name), getattr(short, name))

    def test_nothing_but_padding(self):
        _, stats = layer()(inputs(), torch.zeros(B, S, dtype=torch.bool))
        assert stats.lb_loss == stats.z_loss == stats.load_E.sum() == 0


class TestBias:
    def test_decides_who_is_chosen_and_nothing_else(self):
        made = layer(bias_rate=0.25, router="sigmoid")
        _, before = made(inputs())
        with torch.no_grad():
            made.balance_bias[5] = 9.0
        _, after = made(inputs())
        assert (after.idx_TK == 5).any(dim=1).all()
        scores_TK = (inputs().flatten(0, 1) @ made.router).sigmoid().gather(1, after.idx_TK)
        torch.testing.assert_close(after.weights_TK, scores_TK / scores_TK.sum(1, keepdim=True))
        torch.testing.assert_close(after.probs_TE, before.probs_TE)

    def test_with_no_bias_yet_the_choice_is_plain(self):
        same(every_gradient(layer(bias_rate=0.25), inputs()), every_gradient(layer(), inputs()))

    def test_moves_only_when_told_and_by_its_rate(self):
        made = layer(bias_rate=0.25)
        counts_E = torch.tensor([10, 0, 4, 4, 4, 3, 3])  # mean 4
        made.update_bias(counts_E)
        assert made.balance_bias.tolist() == [-0.25, 0.25, 0, 0, 0, 0.25, 0.25]
        made.update_bias(counts_E)
        assert made.balance_bias.tolist() == [-0.5, 0.5, 0, 0, 0, 0.5, 0.5]

    def test_keeps_its_precision_when_the_layer_is_cast(self):
        made = layer(bias_rate=0.001)
        for _ in range(300):
            made.update_bias(torch.tensor([10, 0, 4, 4, 4, 3, 3]))
        kept = made.balance_bias.clone()
        made.bfloat16().update_bias(torch.tensor([10, 0, 4, 4, 4, 3, 3]))
        assert made.balance_bias.dtype == torch.float32
        torch.testing.assert_close(
            made.balance_bias[:2], kept[:2] + torch.tensor([-0.001, 0.001]), rtol=0, atol=1e-6
        )
        assert made.w_gate.dtype == torch.bfloat16

    def test_without_one_there_is_nothing_to_move(self):
        with pytest.raises(ValueError, match="bias_rate is 0"):
            layer().update_bias(torch.ones(E))

    def test_counts_must_fit(self):
        with pytest.raises(ValueError, match="counts_E"):
            layer(bias_rate=0.1).update_bias(torch.ones(E + 1))

    def test_balances_a_skewed_router(self):
        made, x_BSD = layer(bias_rate=0.02, top_k=2), inputs(shape=(8, 64, D))
        with torch.no_grad():
            made.router[:, :2] += 1.5 * x_BSD.mean(dim=(0, 1))[:, None].sign()
        first = made(x_BSD)[1].load_E
        for _ in range(200):
            made.update_bias(made(x_BSD)[1].counts_E)
        last = made(x_BSD)[1].load_E
        assert (last * E).max() < 1.2 < (first * E).max()


GOLDEN_Z = [[2, 1, 0, -1], [2, 0, 1, -1], [0, 2, 1, -1], [1, 2, -1, 0], [3, 1, 0, 0.5], [1.5, 1, 0, -2]]
GOLDEN_DROPPED = {
    "choice": {(3, 1), (4, 1), (5, 0), (5, 1)},
    "token": {(4, 0), (4, 1), (5, 0), (5, 1)},
    "priority": {(0, 1), (3, 1), (5, 0), (5, 1)},
}


class TestCapacity:
    """The golden fixture of the curriculum: six tokens, four experts, three slots each."""

    def made(self, **options):
        """A layer whose logits are the first four numbers of a token."""
        made = layer(num_experts=4, top_k=2, **options)
        with torch.no_grad():
            made.router.copy_(torch.eye(D, 4))
        return made

    def x_BSD(self):
        x_TD = inputs(shape=(6, D))
        x_TD[:, :4] = torch.tensor(GOLDEN_Z)
        return x_TD[None]

    @pytest.mark.parametrize("fill", GOLDEN_DROPPED)
    def test_who_is_dropped_adds_nothing_and_the_rest_is_not_rescaled(self, fill):
        """The output and every gradient are those of the loop with the weights of the dropped set to 0."""
        made = self.made(capacity_factor=1.0, fill=fill)
        x_BSD = self.x_BSD().requires_grad_()
        y_BSD, stats = made(x_BSD)
        kept_TK = torch.ones(6, 2)
        for pair in GOLDEN_DROPPED[fill]:
            kept_TK[pair] = 0.0
        args = (x_BSD[0], stats.weights_TK * kept_TK, stats.idx_TK, made.w_gate, made.w_up, made.w_down)
        expected_TD = moe_loop(*args)
        torch.testing.assert_close(y_BSD[0], expected_TD)
        leaves = [x_BSD, *made.parameters()]
        cotangent_TD = inputs(seed=4, shape=(6, D))
        gradients = [
            torch.autograd.grad(y_TD, leaves, cotangent_TD, retain_graph=True)
            for y_TD in (y_BSD[0], expected_TD)
        ]
        for actual, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(actual, expected)
        assert stats.drop_rate.item() == pytest.approx(4 / 12)
        assert stats.counts_E.tolist() == [5, 5, 2, 0]  # before any is dropped
        assert stats.lb_loss.item() == pytest.approx(1.467869, abs=1e-6)
        assert stats.z_loss.item() == pytest.approx(6.465267, abs=1e-6)

    @pytest.mark.parametrize("fill", GOLDEN_DROPPED)
    def test_dropped_assignments_get_no_gradient(self, fill):
        made = self.made(capacity_factor=1.0, fill=fill, renormalize=False)
        x_BSD = self.x_BSD()
        y_BSD, stats = made(x_BSD)
        stats.weights_TK.retain_grad()
        y_BSD.square().sum().backward()
        zero = {tuple(pair) for pair in (stats.weights_TK.grad == 0).nonzero().tolist()}
        assert zero == GOLDEN_DROPPED[fill]

    @pytest.mark.parametrize("fill", GOLDEN_DROPPED)
    def test_with_room_for_all_it_is_dropless(self, fill):
        for factor in (E / K, 40.0):
            roomy = every_gradient(layer(capacity_factor=factor, fill=fill), inputs())
            same(roomy, every_gradient(layer(), inputs()))

    def test_slots_are_counted_by_assignment_and_rounded_up(self):
        """T·K/E · factor = 6·4/7 · 0.7 = 2.4, so three slots an expert: never more used, sometimes all."""
        used, drops = 0, 0.0
        for seed in range(5):
            _, stats = layer(seed, capacity_factor=0.7)(inputs(seed))
            kept_E = stats.counts_E.clamp(max=3)
            used = max(used, stats.counts_E.max().item())
            assert stats.drop_rate.item() == pytest.approx(1 - kept_E.sum().item() / 24)
            drops += stats.drop_rate.item()
        assert used > 3
        assert drops > 0

    def test_a_tiny_factor_still_leaves_one_slot(self):
        _, stats = layer(capacity_factor=1e-6)(inputs())
        assert stats.drop_rate.item() == pytest.approx(1 - (stats.counts_E > 0).sum().item() / 24)


class TestPrecision:
    def test_the_router_of_a_bfloat16_layer_computes_in_float32(self):
        made = layer(num_experts=2, top_k=1, renormalize=False).bfloat16()
        with torch.no_grad():
            made.router.zero_()
            made.router[0] = 1.0
            made.router[1, 1] = 1.0
        x_BSD = torch.zeros(1, 1, D, dtype=torch.bfloat16)
        x_BSD[0, 0, :2] = torch.tensor([256.0, 1.0])  # 257 is not a bfloat16: it rounds to 256
        y_BSD, stats = made(x_BSD)
        assert y_BSD.dtype == torch.bfloat16
        assert stats.weights_TK.dtype == stats.lb_loss.dtype == stats.z_loss.dtype == torch.float32
        torch.testing.assert_close(stats.probs_TE, torch.tensor([[0.0, 1.0]]).softmax(1))

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    def test_autocast_leaves_the_router_alone_and_rounds_the_experts(self, options):
        made, x_BSD = layer(**options), inputs()
        exact = every_gradient(made, x_BSD)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = every_gradient(made, x_BSD)
        for name in ("probs_TE", "weights_TK", "idx_TK", "lb_loss", "z_loss", "drop_rate"):
            assert torch.equal(rounded[name], exact[name]), name
        assert rounded["y_BSD"].dtype == torch.float32
        assert not torch.equal(rounded["y_BSD"], exact["y_BSD"])
        same(rounded, exact, rtol=8 * torch.finfo(torch.bfloat16).eps)

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_the_dtype_of_the_input_comes_back(self, options, dtype):
        made = layer(**options).to(dtype)
        results = every_gradient(made, inputs(dtype=dtype))
        assert results["y_BSD"].dtype == results["gradient of x"].dtype == dtype
        assert results["probs_TE"].dtype == torch.float32


# On the meta device "loop" does not run: see `moe_course.moe.dispatchers`.
TRAFFIC = [
    *({"dispatch": dispatch} for dispatch in ("auto", "onehot", "sorted", "grouped")),
    *({"capacity_factor": 1.25, "fill": fill} for fill in ("choice", "token", "priority")),
]  # fmt: skip
ROUTERS = [
    {"router": router, **more}
    for router in ("softmax", "sigmoid")
    for more in (
        {}, {"noise": True}, {"bias_rate": 0.1}, {"num_groups": 4, "top_groups": 2}, {"renormalize": False},
        {"noise": True, "bias_rate": 0.1, "num_groups": 2, "num_shared": 1, "d_ff_shared": 8},
    )
]  # fmt: skip


@pytest.mark.parametrize("traffic", TRAFFIC, ids=str)
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_nothing_is_read_from_the_device(traffic, router):
    """Model, losses, backward and the bias on the meta device, where there are no values to read."""
    for dtype, padded in itertools.product((torch.float32, torch.bfloat16), (False, True)):
        with torch.device("meta"):
            made = MoELayer(MoEConfig(d_model=16, d_ff=24, num_experts=8, top_k=2, **traffic, **router)).to(
                dtype
            )
            x_BSD = torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)
            mask_BS = torch.ones(3, 5, dtype=torch.bool) if padded else None
        results = every_gradient(made, x_BSD, mask_BS)
        assert {value.device.type for value in results.values()} == {"meta"}
        if made.config.bias_rate:
            made.update_bias(results["counts_E"])


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"dispatch": "onehot", "num_shared": 1, "d_ff_shared": 8}, torch.float32),
        ({"router": "sigmoid", "bias_rate": 0.1, "num_groups": 2, "scale": 2.5}, torch.bfloat16),
        ({"capacity_factor": 0.7, "fill": "priority"}, torch.float32),
    ],
    ids=["onehot", "grouped", "capacity"],
)
def test_compiles_into_one_graph(options, dtype):
    made = MoELayer(MoEConfig(d_model=8, d_ff=16, num_experts=6, top_k=2, **options)).to(dtype)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    same(every_gradient(compiled, inputs(dtype=dtype)), every_gradient(made, inputs(dtype=dtype)))


def test_compiles_with_a_break_where_the_counts_are_read():
    made = layer(dispatch="sorted")
    same(every_gradient(torch.compile(made, backend="eager"), inputs()), every_gradient(made, inputs()))
