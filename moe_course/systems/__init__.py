"""What a model costs: parameters, FLOPs, bytes; published models; serving; experts on many machines.

It may import `moe`, `published`, `hardware`, `config` and `shapes`. Begin with `accounting.py`, or with `serving.py`.
Names load on first use: importing this package loads no other module of it.
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "tokens_per_expert": "accounting",
    "ffn_params": "accounting",
    "ffn_flops": "accounting",
    "moe_ffn_params": "accounting",
    "model_params": "accounting",
    "active_matched_d_ff": "accounting",
    "breakdown": "accounting",
    "flops_per_token": "accounting",
    "weight_bytes": "accounting",
    "activations_per_token": "accounting",
    "training_memory": "accounting",
    "format_table": "accounting",
    "timeline_table": "timeline",
    "expert_rank": "expert_parallel",
    "send_counts": "expert_parallel",
    "exchange_rows": "expert_parallel",
    "expert_parallel_forward": "expert_parallel",
    "ExpertParallelMoE": "expert_parallel",
    "spread_experts": "expert_parallel",
    "local_state": "expert_parallel",
    "whole_state": "expert_parallel",
    "is_expert_weight": "expert_parallel",
    "all_to_all_bytes": "communication",
    "distinct_nodes": "communication",
    "expected_distinct_nodes": "communication",
    "tensor_parallel_bytes": "communication",
    "step_time": "communication",
    "place_experts": "placement",
    "replicate_experts": "placement",
    "rank_loads": "placement",
    "best_plan": "scaling",
    "budget_table": "scaling",
    "dense_equivalent": "scaling",
    "expected_distinct_experts": "serving",
    "decode_bytes": "serving",
    "decode_seconds": "serving",
    "critical_batch": "serving",
    "simulate_expert_cache": "serving",
    "tail_latency": "serving",
    "quantize_int8": "serving",
    "dequantize_int8": "serving",
    "ServingSizes": "footprint",
    "serving_sizes": "footprint",
    "kv_values_per_token": "footprint",
    "tokens_per_verification": "footprint",
    "distinct_per_step": "traces",
    "steps_of": "traces",
    "chosen_shares": "traces",
    "expected_distinct_given_load": "traces",
    "layer_traces": "traces",
    "shared_trace": "traces",
    "simulate_batching": "batching",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
