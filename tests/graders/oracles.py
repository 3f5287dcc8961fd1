"""What the right answer is, computed slowly and obviously, independent of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def swiglu(
    x_TD: torch.Tensor, w_gate_DF: torch.Tensor, w_up_DF: torch.Tensor, w_down_FD: torch.Tensor
) -> torch.Tensor:
    """SwiGLU feed-forward layer (Shazeer 2020, eq. 6), in float64; the result in x's dtype."""
    x, gate, up, down = (tensor.double() for tensor in (x_TD, w_gate_DF, w_up_DF, w_down_FD))
    gate_TF = x @ gate
    hidden_TF = gate_TF / (1 + torch.exp(-gate_TF)) * (x @ up)  # z·sigmoid(z) is SiLU
    return (hidden_TF @ down).to(x_TD.dtype)


def moe_ffn_params(
    d_model: int, d_ff: int, num_experts: int, top_k: int, num_shared: int = 0
) -> tuple[int, int]:
    """(total, active): the router's columns and each expert's three matrices, added one by one."""
    total = active = sum(d_model for _ in range(num_experts))
    for expert in range(num_experts + num_shared):
        size = sum((d_model * d_ff, d_model * d_ff, d_ff * d_model))
        total += size
        active += size if expert < top_k or expert >= num_experts else 0
    return total, active


def router_probs(x_TD: torch.Tensor, w_DE: torch.Tensor) -> torch.Tensor:
    """Softmax of x·w over the experts, computed in float64, as float32."""
    return softmax(x_TD.double() @ w_DE.double()).float()


def softmax(logits_TE: torch.Tensor) -> torch.Tensor:
    """exp(z) / Σ exp(z) over the experts, in float64, where exp overflows only beyond 700."""
    exp_TE = torch.exp(logits_TE.double())
    return exp_TE / exp_TE.sum(1, keepdim=True)


def top_k(values_TE: torch.Tensor, k: int) -> torch.Tensor:
    """Which k entries of each row are the largest, in descending order, by sorting in Python."""
    return torch.tensor([sorted(range(len(row)), key=lambda e: -row[e])[:k] for row in values_TE.tolist()])


def top_k_gate(probs_TE: torch.Tensor, k: int, renormalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest probabilities of each token and their experts."""
    idx_TK = top_k(probs_TE, k)
    weights_TK = torch.stack([row[chosen] for row, chosen in zip(probs_TE.double(), idx_TK, strict=True)])
    if renormalize:
        weights_TK = weights_TK / weights_TK.sum(1, keepdim=True)
    return weights_TK.to(probs_TE.dtype), idx_TK


def sparse_gates(logits_TE: torch.Tensor, k: int) -> torch.Tensor:
    """A softmax over the k largest logits of each token, 0 elsewhere."""
    kept_TE = torch.nn.functional.one_hot(top_k(logits_TE, k), logits_TE.shape[1]).sum(1)
    exp_TE = torch.exp(logits_TE.double()) * kept_TE
    return (exp_TE / exp_TE.sum(1, keepdim=True)).to(logits_TE.dtype)


def noisy_logits(
    x_TD: torch.Tensor,
    w_gate_DE: torch.Tensor,
    w_noise_DE: torch.Tensor,
    noise_TE: torch.Tensor,
    training: bool,
) -> torch.Tensor:
    """x·w_gate, in training plus noise times softplus(x·w_noise) (Shazeer 2017, eq. 4)."""
    x, gate, scale, noise = (tensor.double() for tensor in (x_TD, w_gate_DE, w_noise_DE, noise_TE))
    logits_TE = x @ gate
    if training:
        scale_TE = x @ scale
        logits_TE = logits_TE + noise * torch.logaddexp(scale_TE, torch.zeros_like(scale_TE))
    return logits_TE.to(x_TD.dtype)


def switch_gate(logits_TE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest probability of each token, and whose it is."""
    weights_TK, idx_TK = top_k_gate(softmax(logits_TE), 1, renormalize=False)
    return weights_TK[:, 0].to(logits_TE.dtype), idx_TK[:, 0]


def router_gradient(
    dy_TD: torch.Tensor, expert_out_TKD: torch.Tensor, probs_TE: torch.Tensor, idx_TK: torch.Tensor
) -> torch.Tensor:
    """What autograd finds for the logits behind probs, with y = Σ_k p[idx_k]·out_k."""
    logits_TE = probs_TE.double().log().requires_grad_()
    p_TE = softmax(logits_TE)
    y_TD = torch.stack(
        [
            sum(p_TE[t, e] * expert_out_TKD[t, slot].double() for slot, e in enumerate(chosen))
            for t, chosen in enumerate(idx_TK.tolist())
        ]
    )
    (dlogits_TE,) = torch.autograd.grad((y_TD * dy_TD.double()).sum(), logits_TE)
    return dlogits_TE.to(probs_TE.dtype)


def moe(
    x_TD: torch.Tensor,
    weights_TK: torch.Tensor,
    idx_TK: torch.Tensor,
    w_gate_EDF: torch.Tensor,
    w_up_EDF: torch.Tensor,
    w_down_EFD: torch.Tensor,
) -> torch.Tensor:
    """Token by token, slot by slot: the weighted sum of the chosen experts' outputs."""
    rows = []
    for x_D, weights_K, idx_K in zip(x_TD, weights_TK, idx_TK.tolist(), strict=True):
        outs = [
            weights_K[slot].double()
            * swiglu(x_D[None].double(), w_gate_EDF[e], w_up_EDF[e], w_down_EFD[e])[0]
            for slot, e in enumerate(idx_K)
        ]
        rows.append(torch.stack(outs).sum(0))
    return torch.stack(rows).to(x_TD.dtype)


def gradients(
    oracle: Callable[..., torch.Tensor],
    args: Sequence[torch.Tensor],
    cotangent: torch.Tensor,
    wrt: Sequence[int],
) -> tuple[torch.Tensor, ...]:
    """The gradients of Σ cotangent·oracle(*args) for the arguments at the positions `wrt`."""
    leaves = [arg.clone().requires_grad_() if i in wrt else arg for i, arg in enumerate(args)]
    return torch.autograd.grad((oracle(*leaves) * cotangent).sum(), [leaves[i] for i in wrt])


def distinct_logits(
    tokens: int, experts: int, rng: torch.Generator, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Random logits (T, E); no two experts of a token come closer than 0.2, so nothing hangs on rounding.

    Tokens differ in level and in spread, so no threshold fits them all.
    """
    order_TE = torch.stack([torch.randperm(experts, generator=rng) for _ in range(tokens)])
    jitter_TE = 0.2 * torch.rand(tokens, experts, generator=rng)
    spread_T1 = 0.4 + 0.3 * torch.rand(tokens, 1, generator=rng)
    level_T1 = 2 * torch.randn(tokens, 1, generator=rng)
    return (level_T1 + (order_TE - experts / 2) * spread_T1 + jitter_TE).to(dtype)


def distinct_probs(
    tokens: int, experts: int, rng: torch.Generator, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The softmax of `distinct_logits`."""
    return torch.softmax(distinct_logits(tokens, experts, rng, torch.float64), dim=1).to(dtype)


def model_params(config) -> tuple[int, int]:
    """Total and active parameters of a decoder, matrix by matrix and layer by layer."""
    total = active = 0

    def add(size: int, copies: int = 1, used: int | None = None) -> None:
        nonlocal total, active
        total += size * copies
        active += size * (copies if used is None else used)

    d, heads, groups, width = config.d_model, config.num_heads, config.num_kv_heads, config.head_dim
    for _ in range(1 if config.tied_embeddings else 2):
        add(config.vocab_size * d)
    for layer in range(config.num_layers):
        for size in (d * heads * width, d * groups * width, d * groups * width, heads * width * d, d, d):
            add(size)  # q, k, v, o and the two norms
        add({"none": 0, "head": 2 * width, "full": (heads + groups) * width}[config.qk_norm])
        if layer < config.num_dense_layers:
            add(3 * d * config.d_ff_dense)
            continue
        add(d * config.num_experts)
        add(3 * d * config.d_ff_expert, config.num_experts, config.top_k)
        add(3 * d * config.d_ff_shared, config.num_shared)
    add(d)
    return total, active
