from dataclasses import replace

import torch

from moe_course.grading.judge.catalogue import caught_by


def _embeddings(c):
    return (1 if c.tied_embeddings else 2) * c.vocab_size * c.d_model


def _attention(c):
    return 2 * c.d_model * c.num_heads * c.head_dim + 2 * c.d_model * c.num_kv_heads * c.head_dim


def _qk_norm(c):
    full = (c.num_heads + c.num_kv_heads) * c.head_dim
    return {"none": 0, "head": 2 * c.head_dim, "full": full}[c.qk_norm]


def _norms(c):
    return c.num_layers * 2 * c.d_model + c.d_model


def _dense(c):
    return c.num_dense_layers * 3 * c.d_model * c.d_ff_dense


def _moe(c):
    """(total, active) of one MoE layer."""
    expert = 3 * c.d_model * c.d_ff_expert
    always = c.d_model * c.num_experts + c.num_shared * 3 * c.d_model * c.d_ff_shared
    return always + c.num_experts * expert, always + c.top_k * expert


def _count(
    c, embeddings=_embeddings, attention=_attention, qk_norm=_qk_norm, norms=_norms, dense=_dense, moe=_moe
):
    """The right count, of which every misconception replaces a part."""
    always = embeddings(c) + c.num_layers * (attention(c) + qk_norm(c)) + norms(c) + dense(c)
    total, active = moe(c)
    moe_layers = c.num_layers - c.num_dense_layers
    return always + moe_layers * total, always + moe_layers * active


@caught_by("plain_decoder")
def heads_share_the_model_width(config):
    """Is num_heads·head_dim always d_model? Look at Qwen3: 32 heads of 128 on a width of 2048?"""
    head_dim = config.d_model // config.num_heads
    kv_width = config.num_kv_heads * head_dim
    return _count(config, attention=lambda c: 2 * c.d_model**2 + 2 * c.d_model * kv_width)


@caught_by("plain_decoder")
def heads_share_the_model_width__norms_too(config):
    """Is num_heads·head_dim always d_model? Look at Qwen3: 32 heads of 128 on a width of 2048?"""
    return _count(replace(config, head_dim=config.d_model // config.num_heads))


@caught_by("plain_decoder")
def as_many_key_heads_as_query_heads(config):
    """Several query heads may share one key and value head. How many of those are there?"""
    return _count(config, attention=lambda c: 4 * c.d_model * c.num_heads * c.head_dim)


@caught_by("plain_decoder")
def output_projection_forgotten(config):
    """q, k and v lead into the heads. What leads out of them again?"""
    return _count(config, attention=lambda c: _attention(c) - c.d_model * c.num_heads * c.head_dim)


@caught_by("plain_decoder")
def biases_in_attention(config):
    """Do these projections have biases?"""
    width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return _count(config, attention=lambda c: _attention(c) + width + c.d_model)


@caught_by("plain_decoder")
def final_norm_forgotten(config):
    """What happens between the last layer and the output embedding?"""
    return _count(config, norms=lambda c: c.num_layers * 2 * c.d_model)


@caught_by("plain_decoder")
def one_norm_a_layer(config):
    """Attention has a norm before it. And the FFN?"""
    return _count(config, norms=lambda c: c.num_layers * c.d_model + c.d_model)


@caught_by("plain_decoder")
def norms_with_biases(config):
    """That is LayerNorm, a weight and a bias per channel. How many has RMSNorm?"""
    return _count(config, norms=lambda c: 2 * _norms(c))


@caught_by("plain_decoder")
def output_embedding_forgotten(config):
    """How do the D numbers of the last layer become V logits?"""
    return _count(config, embeddings=lambda c: c.vocab_size * c.d_model)


@caught_by("plain_decoder")
def input_embedding_not_active(config):
    """A look-up reads one row only, true. What does this course's convention count as active?"""
    total, active = _count(config)
    return total, active - (0 if config.tied_embeddings else config.vocab_size * config.d_model)


@caught_by("plain_decoder")
def two_matrices_an_expert(config):
    """Is an expert a plain two-matrix layer or a gated one?"""
    expert = 2 * config.d_model * config.d_ff_expert
    shared = config.num_shared * 2 * config.d_model * config.d_ff_shared
    always = config.d_model * config.num_experts + shared
    return _count(
        config,
        dense=lambda c: c.num_dense_layers * 2 * c.d_model * c.d_ff_dense,
        moe=lambda c: (always + c.num_experts * expert, always + c.top_k * expert),
    )


@caught_by("plain_decoder")
def router_forgotten(config):
    """Something must decide where a token goes. Has it no parameters?"""
    router = config.d_model * config.num_experts
    return _count(config, moe=lambda c: tuple(part - router for part in _moe(c)))


@caught_by("plain_decoder")
def router_not_active(config):
    """Every token multiplies with the router's matrix. Where is it in the active count?"""
    return _count(config, moe=lambda c: (_moe(c)[0], _moe(c)[1] - c.d_model * c.num_experts))


@caught_by("plain_decoder")
def all_experts_active(config):
    """How many of the experts does one token pass through?"""
    return _count(config, moe=lambda c: (_moe(c)[0], _moe(c)[0]))


@caught_by("plain_decoder")
def active_before_total(config):
    """Which of the two numbers does the caller expect first?"""
    return _count(config)[::-1]


@caught_by("tied")
def tied_embeddings_counted_twice(config):
    """Input and output share one matrix when they are tied. How often is it stored?"""
    return _count(config, embeddings=lambda c: 2 * c.vocab_size * c.d_model)


@caught_by("tied")
def tied_embeddings_active_twice(config):
    """A tied matrix is used twice. Does that make it two matrices?"""
    total, active = _count(config)
    return total, active + (config.vocab_size * config.d_model if config.tied_embeddings else 0)


@caught_by("shared")
def shared_width_divided_among_them(config):
    """Is d_ff_shared the width of all shared experts together, or of each?"""
    extra = (config.num_shared - 1 if config.num_shared else 0) * 3 * config.d_model * config.d_ff_shared
    return _count(config, moe=lambda c: tuple(part - extra for part in _moe(c)))


@caught_by("shared")
def shared_as_wide_as_routed(config):
    """Which field says how wide a shared expert is?"""
    extra = config.num_shared * 3 * config.d_model * (config.d_ff_expert - config.d_ff_shared)
    return _count(config, moe=lambda c: tuple(part + extra for part in _moe(c)))


@caught_by("shared")
def shared_not_active(config):
    """Can a token avoid a shared expert?"""
    shared = config.num_shared * 3 * config.d_model * config.d_ff_shared
    return _count(config, moe=lambda c: (_moe(c)[0], _moe(c)[1] - shared))


@caught_by("shared")
def shared_experts_routed(config):
    """Does the router need a column for an expert that every token visits anyway?"""
    return _count(config, moe=lambda c: tuple(part + c.d_model * c.num_shared for part in _moe(c)))


@caught_by("dense_layers")
def router_in_dense_layers(config):
    """What is there to choose in a layer with one FFN?"""
    routers = config.num_dense_layers * config.d_model * config.num_experts
    return _count(config, dense=lambda c: _dense(c) + routers)


@caught_by("dense_layers")
def dense_layers_overlooked(config):
    """Do all layers have experts?"""
    extra = [config.num_dense_layers * part for part in _moe(config)]
    return tuple(part + more for part, more in zip(_count(config, dense=lambda c: 0), extra, strict=True))


@caught_by("dense_layers")
def dense_layers_on_top(config):
    """num_layers counts every layer. Are the dense ones among them, or do they come on top?"""
    extra = [config.num_dense_layers * part for part in _moe(config)]
    return tuple(part + more for part, more in zip(_count(config), extra, strict=True))


@caught_by("dense_layers")
def dense_layers_as_wide_as_an_expert(config):
    """Which field says how wide a dense layer's FFN is?"""
    return _count(config, dense=lambda c: c.num_dense_layers * 3 * c.d_model * c.d_ff_expert)


@caught_by("dense_layers")
def shared_experts_in_dense_layers(config):
    """Do the shared experts belong to the MoE layers, or to all?"""
    shared = config.num_dense_layers * config.num_shared * 3 * config.d_model * config.d_ff_shared
    return _count(config, dense=lambda c: _dense(c) + shared)


@caught_by("qk_norm")
def norms_of_q_and_k_forgotten(config):
    """What does the field qk_norm add to a layer?"""
    return _count(config, qk_norm=lambda c: 0)


@caught_by("qk_norm")
def one_norm_for_each_head(config):
    """Do the heads have norms of their own in the setting "head", or do they share one of head_dim weights?"""
    full = (config.num_heads + config.num_kv_heads) * config.head_dim
    return _count(config, qk_norm=lambda c: 0 if c.qk_norm == "none" else full)


@caught_by("qk_norm")
def always_head_dim_weights(config):
    """One weight per channel, over all heads: how many channels has q then, and how many k?"""
    return _count(config, qk_norm=lambda c: 0 if c.qk_norm == "none" else 2 * c.head_dim)


@caught_by("qk_norm")
def queries_only(config):
    """Queries are normalised. And the keys that they meet?"""
    q = {"none": 0, "head": config.head_dim, "full": config.num_heads * config.head_dim}
    return _count(config, qk_norm=lambda c: q[c.qk_norm])


@caught_by("qk_norm")
def keys_as_wide_as_queries(config):
    """How many key channels are there when there are fewer key heads than query heads?"""
    wide = {"none": 0, "head": 2 * config.head_dim, "full": 2 * config.num_heads * config.head_dim}
    return _count(config, qk_norm=lambda c: wide[c.qk_norm])


@caught_by("qk_norm")
def values_normalised_too(config):
    """Which of q, k and v does qk_norm name?"""
    value = {"none": 0, "head": config.head_dim, "full": config.num_kv_heads * config.head_dim}
    return _count(config, qk_norm=lambda c: _qk_norm(c) + value[c.qk_norm])


@caught_by("qk_norm")
def one_for_the_whole_model(config):
    """Do all layers share the norms of q and k?"""
    return _count(config, qk_norm=lambda c: 0, norms=lambda c: _norms(c) + _qk_norm(c))


@caught_by("published")
def summed_in_float32(config):
    """float32 holds 24 bits. How many bits does the number 46 billion need?"""
    return tuple(int(torch.tensor(count, dtype=torch.float32).item()) for count in _count(config))


@caught_by("published")
def summed_in_int32(config):
    """What is the largest number that 32 bits can count to?"""
    return tuple(int(torch.tensor(count).to(torch.int32)) for count in _count(config))


@caught_by("exact_int", form=True)
def as_floats(config):
    """Is a number of parameters ever a fraction? Which of your operations turns an int into a float?"""
    return tuple(float(count) for count in _count(config))
