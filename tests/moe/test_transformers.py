"""The layer with a published model's weights against that model's own block in `transformers`."""

import pytest
import torch

from moe_course.moe import MoEConfig, MoELayer, load_balancing_loss, router_logits, top_k_gate

B, S, D, F, E, K = 2, 5, 8, 12, 6, 3
COMMON = dict(hidden_size=D, num_experts_per_tok=K)

# name: model, class of the block, options of its configuration, options of ours
BLOCKS = {
    "Mixtral": (
        "mixtral", "MixtralSparseMoeBlock",
        dict(intermediate_size=F, num_local_experts=E),
        {},
    ),
    "OLMoE": (
        "olmoe", "OlmoeSparseMoeBlock",
        dict(intermediate_size=F, num_experts=E, norm_topk_prob=False),
        dict(renormalize=False),
    ),
    "Qwen3-MoE": (
        "qwen3_moe", "Qwen3MoeSparseMoeBlock",
        dict(moe_intermediate_size=F, num_experts=E, norm_topk_prob=True),
        {},
    ),
    "DeepSeek-V3": (
        "deepseek_v3", "DeepseekV3MoE",
        dict(
            moe_intermediate_size=F, n_routed_experts=E, n_shared_experts=2, n_group=3, topk_group=2,
            routed_scaling_factor=2.5, norm_topk_prob=True,
        ),
        dict(
            router="sigmoid", scale=2.5, num_groups=3, top_groups=2, bias_rate=0.001,
            num_shared=2, d_ff_shared=F,
        ),
    ),
}  # fmt: skip


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def theirs(name):
    """Their block with random weights. Those of the router are large enough for clear choices."""
    model, block, options, _ = BLOCKS[name]
    configuration = pytest.importorskip(f"transformers.models.{model}.configuration_{model}")
    modeling = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    (config_class,) = (
        value
        for key, value in vars(configuration).items()
        if key.endswith("Config") and value.__module__ == configuration.__name__
    )
    config = config_class(**COMMON, **options)
    config._experts_implementation = "eager"
    made = getattr(modeling, block)(config).eval()
    with torch.no_grad():
        for seed, value in enumerate(made.state_dict().values()):  # they are created uninitialised
            value.copy_(normal(*value.shape, seed=seed) * 0.5)
    return made


def ours(name, block):
    """Our layer with the weights of theirs: output first becomes input first, gate rows come before up rows."""
    layer = MoELayer(MoEConfig(d_model=D, d_ff=F, num_experts=E, top_k=K, **BLOCKS[name][3]))
    weights = block.state_dict()
    w_gate_EFD, w_up_EFD = weights["experts.gate_up_proj"].chunk(2, dim=1)
    state = {
        "router": weights["gate.weight"].T,
        "w_gate": w_gate_EFD.mT,
        "w_up": w_up_EFD.mT,
        "w_down": weights["experts.down_proj"].mT,
    }
    if name == "DeepSeek-V3":
        state["balance_bias"] = weights["gate.e_score_correction_bias"]
        for part in ("gate", "up", "down"):
            state[f"shared_{part}"] = weights[f"shared_experts.{part}_proj.weight"].T
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("name", BLOCKS)
def test_output_and_gradients_are_theirs(name):
    block = theirs(name)
    layer = ours(name, block)
    x_BSD = normal(B, S, D, seed=20)
    results = []
    for module in (layer, block):
        inside_BSD = x_BSD.clone().requires_grad_()
        out = module(inside_BSD)
        y_BSD = out[0] if isinstance(out, tuple) else out
        y_BSD.backward(normal(B, S, D, seed=21))
        results.append((y_BSD.detach(), inside_BSD.grad))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())

    grads = {parameter: p.grad for parameter, p in block.named_parameters()}
    gate_EFD, up_EFD = grads["experts.gate_up_proj"].chunk(2, dim=1)
    expected = {
        "router": grads["gate.weight"].T,
        "w_gate": gate_EFD.mT,
        "w_up": up_EFD.mT,
        "w_down": grads["experts.down_proj"].mT,
    }
    for parameter, gradient in expected.items():
        torch.testing.assert_close(
            getattr(layer, parameter).grad, gradient, rtol=0, atol=1e-5 * gradient.abs().max().item(),
            msg=lambda text, n=parameter: f"gradient of {n}: {text}",
        )  # fmt: skip


def test_the_bias_of_deepseek_matters_here():
    """With another bias the output differs: the comparison above does see the biased choice."""
    layer = ours("DeepSeek-V3", theirs("DeepSeek-V3"))
    x_BSD = normal(B, S, D, seed=20)
    before = layer(x_BSD)[1].idx_TK.sort(dim=1).values
    layer.balance_bias.zero_()
    assert not torch.equal(layer(x_BSD)[1].idx_TK.sort(dim=1).values, before)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("model", ["mixtral", "olmoe", "qwen3_moe"])
def test_their_load_balancing_loss_is_k_times_ours(model, padded):
    """Theirs sums over the K slots and does not divide by K: uniform routing gives K there, 1 here."""
    modeling = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    logits_TE = normal(B * S, E, seed=3).requires_grad_()
    mask_BS = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]) if padded else None
    expected = modeling.load_balancing_loss_func((logits_TE,), E, K, mask_BS)
    probs_TE = logits_TE.softmax(dim=-1)
    idx_TK = top_k_gate(probs_TE, K)[1]
    loss = load_balancing_loss(probs_TE, idx_TK, mask_BS.bool().flatten() if padded else None)
    torch.testing.assert_close(K * loss, expected)
    gradients = [torch.autograd.grad(value, logits_TE)[0] for value in (K * loss, expected)]
    torch.testing.assert_close(*gradients)


def test_pooled_layers_are_not_the_mean_of_layers():
    """Given several layers, theirs pools the counts before it multiplies; ours is one number a layer."""
    modeling = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits_TE = torch.tensor([[4.0, 0.0]]).repeat(6, 1)  # one layer collapses onto expert 0, the other onto 1
    both = (logits_TE, logits_TE.flip(1))
    pooled = modeling.load_balancing_loss_func(both, 2, 1)
    mean = sum(load_balancing_loss(z.softmax(1), top_k_gate(z.softmax(1), 1)[1]) for z in both) / 2
    assert pooled.item() == pytest.approx(1.0)
    assert mean.item() > 1.9


@pytest.mark.parametrize("name", ["Mixtral", "DeepSeek-V3"])
def test_the_router_scores_are_theirs(name):
    block = theirs(name)
    layer = ours(name, block)
    x_TD = normal(B * S, D, seed=20)
    logits_TE = block.gate(x_TD)[0]
    torch.testing.assert_close(router_logits(x_TD, layer.router), logits_TE)
