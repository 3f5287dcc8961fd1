import dataclasses
from collections import Counter


def layer_by_layer(config):
    d = config.d_model
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    total = active = config.vocab_size * d + d
    if not config.tied_embeddings:
        total += config.vocab_size * d
        active += config.vocab_size * d
    for layer in range(config.num_layers):
        both = d * q + d * kv + d * kv + q * d + d + d
        if config.qk_norm == "head":
            both += config.head_dim + config.head_dim
        elif config.qk_norm == "full":
            both += q + kv
        if layer < config.num_dense_layers:
            both += 3 * d * config.d_ff_dense
        else:
            both += d * config.num_experts + 3 * d * config.d_ff_shared * config.num_shared
            total += config.num_experts * 3 * d * config.d_ff_expert
            active += config.top_k * 3 * d * config.d_ff_expert
        total += both
        active += both
    return total, active


def active_is_the_total_of_a_smaller_model(config):
    """A model with k experts in place of E is what a token passes through, but for the router."""
    routers = (config.num_layers - config.num_dense_layers) * config.d_model
    fewer = dataclasses.replace(config, num_experts=config.top_k)
    return [_total(config), _total(fewer) + routers * (config.num_experts - config.top_k)]


def _total(c):
    heads = 2 * c.num_heads + 2 * c.num_kv_heads
    extra = {"none": 0, "head": 2, "full": c.num_heads + c.num_kv_heads}[c.qk_norm] * c.head_dim
    expert_widths = c.num_experts * c.d_ff_expert + c.num_shared * c.d_ff_shared
    sizes = Counter(embedding=c.vocab_size * c.d_model * (2 - c.tied_embeddings), norm=c.d_model)
    for layer in range(c.num_layers):
        dense = layer < c.num_dense_layers
        sizes["attention"] += c.d_model * c.head_dim * heads + extra
        sizes["norm"] += 2 * c.d_model
        sizes["ffn"] += 3 * c.d_model * (c.d_ff_dense if dense else expert_widths)
        sizes["router"] += 0 if dense else c.d_model * c.num_experts
    return sizes.total()
