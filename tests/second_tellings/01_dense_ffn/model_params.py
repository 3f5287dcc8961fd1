import math
from types import SimpleNamespace


def _counted(config, **other):
    """The right count of a config in which some fields are read differently; `extra` is added to both results."""
    c = SimpleNamespace(**{name: getattr(config, name) for name in config.__dataclass_fields__})
    c.extra, c.matrices, c.layer_norms, c.qk = 0, 3, 2, None
    c.__dict__.update(other)
    D = c.d_model
    qk = {"none": 0, "head": 2 * c.head_dim, "full": (c.num_heads + c.num_kv_heads) * c.head_dim}[c.qk_norm]
    attention = D * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    layers = c.num_layers * (attention + (qk if c.qk is None else c.qk) + c.layer_norms * D)
    dense = c.num_dense_layers * 3 * D * c.d_ff_dense
    outside = c.vocab_size * D * (1 if c.tied_embeddings else 2) + D
    one = c.matrices * D * c.d_ff_expert
    shared = c.num_shared * c.matrices * D * c.d_ff_shared
    sparse = c.num_layers - c.num_dense_layers
    both = outside + layers + dense + sparse * (shared + D * c.num_experts) + c.extra
    return both + sparse * c.num_experts * one, both + sparse * c.top_k * one


def as_many_key_heads_as_query_heads(config):
    return _counted(config, num_kv_heads=config.num_heads)


def output_projection_forgotten(config):
    return _counted(config, extra=-config.num_layers * config.num_heads * config.head_dim * config.d_model)


def final_norm_forgotten(config):
    total, active = _counted(config)
    return total - config.d_model, active - config.d_model


def one_norm_a_layer(config):
    return _counted(config, layer_norms=1)


def output_embedding_forgotten(config):
    return _counted(config, tied_embeddings=True)


def input_embedding_not_active(config):
    total, active = _counted(config)
    return total, active - (0 if config.tied_embeddings else config.vocab_size * config.d_model)


def two_matrices_an_expert(config):
    return _counted(config, matrices=2)


def router_forgotten(config):
    total, active = _counted(config)
    router = (config.num_layers - config.num_dense_layers) * config.num_experts * config.d_model
    return total - router, active - router


def router_not_active(config):
    total, active = _counted(config)
    return total, active - (config.num_layers - config.num_dense_layers) * config.num_experts * config.d_model


def all_experts_active(config):
    return _counted(config, top_k=config.num_experts)


def active_before_total(config):
    return _counted(config)[::-1]


def tied_embeddings_counted_twice(config):
    return _counted(config, tied_embeddings=False)


def shared_as_wide_as_routed(config):
    return _counted(config, d_ff_shared=config.d_ff_expert)


def shared_not_active(config):
    return _counted(config)[0], _counted(config, num_shared=0)[1]


def dense_layers_overlooked(config):
    return _counted(config, num_dense_layers=0)


def dense_layers_as_wide_as_an_expert(config):
    return _counted(config, d_ff_dense=config.d_ff_expert)


def norms_of_q_and_k_forgotten(config):
    return _counted(config, qk_norm="none")


def always_head_dim_weights(config):
    return _counted(config, qk_norm="none" if config.qk_norm == "none" else "head")


def heads_share_the_model_width(config):
    return _counted(config, head_dim=config.d_model // config.num_heads)


def as_floats(config):
    total, active = _counted(config)
    return math.fsum([total]), math.fsum([active])
