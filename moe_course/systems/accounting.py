"""What a decoder costs, counted exactly: parameters, FLOPs and bytes, in total and per token.

*Total* parameters must be stored. *Active* parameters are those that one token uses. With experts the two differ:
a mixture of experts saves compute per token, not memory. A multiply-add counts as 2 FLOPs.
"""

from moe_course.config import ModelConfig
from moe_course.tables import text_table


def tokens_per_expert(num_tokens: int, top_k: int, num_experts: int) -> float:
    """Assignments that each expert gets when T tokens choose K of E experts perfectly evenly: T·K/E."""
    _need_positive(num_tokens=num_tokens, top_k=top_k, num_experts=num_experts)
    return num_tokens * top_k / num_experts


def ffn_params(d_model: int, d_ff: int) -> int:
    """Parameters of one SwiGLU feed-forward layer: three bias-free matrices of d_model × d_ff."""
    _need_positive(d_model=d_model, d_ff=d_ff)
    return 3 * d_model * d_ff


def ffn_flops(num_tokens: int, d_model: int, d_ff: int) -> int:
    """FLOPs of one SwiGLU layer's forward pass over num_tokens (0 is allowed), matrix products only."""
    if num_tokens < 0:
        raise ValueError(f"num_tokens must not be negative, got {num_tokens}")
    return 2 * num_tokens * ffn_params(d_model, d_ff)  # every token uses every weight in one multiply-add


def moe_ffn_params(
    d_model: int, d_ff: int, num_experts: int, top_k: int, num_shared: int = 0
) -> tuple[int, int]:
    """(total, active) parameters of one MoE layer: router, routed experts and shared experts of width d_ff.

    The router scores all experts for every token, so it counts fully in both. Raises ValueError for sizes
    that are not positive, top_k outside 1..num_experts, or a negative num_shared.
    """
    _need_positive(num_experts=num_experts)
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k must be in 1..{num_experts}, the number of experts, got {top_k}")
    if num_shared < 0:
        raise ValueError(f"num_shared must not be negative, got {num_shared}")
    router = d_model * num_experts
    expert = ffn_params(d_model, d_ff)
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


def model_params(config: ModelConfig) -> tuple[int, int]:
    """(total, active) parameters of a decoder: the sums of `breakdown`."""
    rows = breakdown(config).values()
    return sum(total for total, _ in rows), sum(active for _, active in rows)


def active_matched_d_ff(d_ff_dense: int, top_k: int, num_shared: int = 0) -> int:
    """The expert width at which top_k routed and num_shared shared experts compute as much as one dense FFN.

    The router's own compute is left out. Raises ValueError for sizes that are not positive, a negative
    num_shared, or a width that does not divide evenly.
    """
    _need_positive(d_ff_dense=d_ff_dense, top_k=top_k)
    if num_shared < 0:
        raise ValueError(f"num_shared must not be negative, got {num_shared}")
    d_ff, rest = divmod(d_ff_dense, top_k + num_shared)
    if rest:
        raise ValueError(
            f"d_ff_dense = {d_ff_dense} does not divide by {top_k} + {num_shared} active experts"
        )
    return d_ff


def breakdown(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(total, active) parameters of each component of the whole model; a component that is absent counts 0.

    Embeddings are input and output together, one matrix when they are tied; both count as active. Norms are
    two RMSNorms a layer, the final one, and those of queries and keys or of attention's latents.
    """
    c = config
    projections, attention_norms = _latent_attention(c) if c.latent else _attention(c)
    attention = c.num_layers * projections
    biases = c.num_layers * c.qkv_bias * (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
    norms = c.num_layers * (2 * c.d_model + attention_norms) + c.d_model
    embeddings = (1 if c.tied_embeddings else 2) * c.vocab_size * c.d_model
    dense_ffn = c.num_dense_layers * 3 * c.d_model * c.d_ff_dense
    router = c.num_moe_layers * c.d_model * c.num_experts
    routed_expert = c.num_moe_layers * 3 * c.d_model * c.d_ff_expert  # one expert of each layer
    shared_experts = c.num_moe_layers * c.d_model * (3 * c.d_ff_shared * c.num_shared + c.shared_gate)
    return {
        "embeddings": (embeddings, embeddings),
        "attention": (attention, attention),
        "biases": (biases, biases),
        "norms": (norms, norms),
        "dense FFN": (dense_ffn, dense_ffn),
        "router": (router, router),
        "shared experts": (shared_experts, shared_experts),
        "routed experts": (c.num_experts * routed_expert, c.top_k * routed_expert),
    }


def _attention(c: ModelConfig) -> tuple[int, int]:
    """(projections, norms) of one layer whose queries, keys and values are computed from the tokens directly."""
    q_width, kv_width = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    projections = 2 * c.d_model * q_width + 2 * c.d_model * kv_width  # q and output, k and v
    return projections, {"none": 0, "head": 2 * c.head_dim, "full": q_width + kv_width}[c.qk_norm]


def _latent_attention(c: ModelConfig) -> tuple[int, int]:
    """(projections, norms) of one layer with multi-head latent attention (DeepSeek-V2, equations 9 to 19)."""
    latent = c.latent
    assert latent is not None
    q_width = c.num_heads * (latent.nope_dim + latent.rope_dim)
    queries = c.d_model * q_width
    if latent.q_rank:
        queries = c.d_model * latent.q_rank + latent.q_rank * q_width
    down = c.d_model * (latent.kv_rank + latent.rope_dim)  # the latent, and the one rotated key of all heads
    up = latent.kv_rank * c.num_heads * (latent.nope_dim + latent.value_dim)  # keys and values of each head
    output = c.num_heads * latent.value_dim * c.d_model
    return queries + down + up + output, latent.q_rank + latent.kv_rank


def flops_per_token(config: ModelConfig, context: int = 0) -> int:
    """FLOPs of one token's forward pass, matrix products only.

    Counted: every active weight matrix once (attention projections, dense FFN, router, active experts, output
    embedding), and for each of the `context` positions that the token attends to, its own among them, the
    score and the weighted sum of values. Not counted: the input embedding, which is a look-up, norms,
    softmax, activation functions and rotations. `context=0` leaves attention's own products out.
    """
    if context < 0:
        raise ValueError(f"context must not be negative, got {context}")
    not_matrices = ("embeddings", "norms", "biases")
    matrices = sum(active for name, (_, active) in breakdown(config).items() if name not in not_matrices)
    output_embedding = config.vocab_size * config.d_model
    # Each head, for each position: q·k and p·v, as many multiply-adds as a key and a value have channels.
    value_dim = config.latent.value_dim if config.latent else config.head_dim
    scores_and_sums = config.num_heads * (config.head_dim + value_dim)
    return 2 * (matrices + output_embedding) + config.num_layers * 2 * scores_and_sums * context


def weight_bytes(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Bytes of all weights. The default is bfloat16. All experts are stored, though each token uses only a few."""
    _need_positive(bytes_per_value=bytes_per_value)
    return model_params(config)[0] * bytes_per_value


def activations_per_token(config: ModelConfig) -> int:
    """How many values training keeps for the backward pass, per token. Only the active experts count.

    Counted, as eager PyTorch saves them without recomputation: inputs and outputs of the two norms of a layer
    and of the final one; queries, keys, values and attention's output (a fused kernel recomputes the scores);
    for each FFN that the token passes through, four values per hidden unit (gate, silu(gate), up, and their product);
    for each routed expert of `moe_loop` also its gathered input, its output, the weighted output, and the
    weight; the router's probabilities; the logits. Not counted: indices, the statistics of norms, norms of
    queries and keys, the sums by which gates are normalised, and what an allocator wastes.
    """
    c = config
    attention = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim
    if c.latent:  # every head has a key and a value of its own, and the latents pass a norm
        attention = 2 * c.num_heads * (c.head_dim + c.latent.value_dim) + 2 * (
            c.latent.q_rank + c.latent.kv_rank
        )
    norms_and_attention = 4 * c.d_model + attention
    dense_ffn = 4 * c.d_ff_dense
    routed = c.num_experts + c.top_k * (4 * c.d_ff_expert + 3 * c.d_model + 1)
    shared = c.num_shared * 4 * c.d_ff_shared
    return (
        c.num_layers * norms_and_attention
        + c.num_dense_layers * dense_ffn
        + c.num_moe_layers * (routed + shared)
        + 2 * c.d_model  # the final norm
        + c.vocab_size
    )


def training_memory(config: ModelConfig, num_tokens: int, bytes_per_value: int = 4) -> dict[str, int]:
    """Bytes that training with Adam holds for num_tokens at a time, all in one dtype, float32 by default.

    Weights, gradients and Adam's two moments cover the *total* parameters, `activations_per_token` the active
    ones. The usual mixed precision (bfloat16 weights and gradients, float32 master weights and moments) also
    holds 2 + 2 + 4 + 8 = 16 bytes a parameter; its activations are half of those in float32.
    """
    _need_positive(num_tokens=num_tokens)
    weights = weight_bytes(config, bytes_per_value)
    return {
        "weights": weights,
        "gradients": weights,
        "Adam moments": 2 * weights,
        "activations": num_tokens * activations_per_token(config) * bytes_per_value,
    }


def format_table(config: ModelConfig, name: str, context: int = 4096) -> str:
    """The costs of a model as a table to print; absent components are left out. 1 GB is 10⁹ bytes."""
    total, active = model_params(config)
    rows = [_row(component, *row) for component, row in breakdown(config).items() if row[0]]
    rows = [("parameters", "total", "active", "share"), *rows, _row("sum", total, active)]

    bf16, fp32 = weight_bytes(config, bytes_per_value=2), weight_bytes(config, bytes_per_value=4)
    memory = training_memory(config, num_tokens=1)
    activations = memory.pop("activations")
    flops = flops_per_token(config)
    attention_flops = flops_per_token(config, context) - flops
    notes = [
        f"weights          {_gb(bf16)} in bf16, {_gb(fp32)} in fp32",
        f"training state   {_gb(sum(memory.values()))}: weights, gradients and Adam's two moments in fp32",
        f"activations      {activations / 1e6:,.2f} MB for each token in training, fp32",
        f"forward pass     {flops / 1e9:,.2f} GFLOPs per token,"
        f" and {attention_flops / 1e9:,.2f} to attend to {context:,} positions",
    ]
    table = text_table(rows, rules=(1, len(rows) - 1))
    return "\n".join([f"{name}: {_describe(config)}", "", table, "", *notes])


def _row(component: str, total: int, active: int) -> tuple[str, ...]:
    return component, f"{total:,}", f"{active:,}", f"{active / total:.1%}"


def _describe(config: ModelConfig) -> str:
    if not config.num_moe_layers:
        return f"{config.num_layers} layers, dense"
    dense = f", {config.num_dense_layers} of them dense" if config.num_dense_layers else ""
    shared = f", and {config.num_shared} shared" if config.num_shared else ""
    return (
        f"{config.num_layers} layers{dense}, {config.top_k} of {config.num_experts} experts per token{shared}"
    )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"


def _need_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be positive, got {size}")
