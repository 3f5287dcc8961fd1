"""The runs behind notebook 06: what the tiny MoE loses when its experts are cut finer, and what wins it back.

All arms have the same expert parameters and FLOPs. Each has a *frozen twin*, whose router keeps its random start: the
difference between the two is what learning to route was worth. `python -m moe_course.lesson.splitting` records them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course import files
from moe_course.lesson import tiny

SEEDS = range(9)
ARMS = {
    "1 of 4 wide": (4, 1, 0, False),
    "3 of 12 narrow": (12, 3, 0, False),
    "2 of 11 and 1 shared": (12, 2, 1, False),
    "3 of 12, weights sum to 1": (12, 3, 0, True),
}
"""{name: (experts, experts chosen, experts shared, whether the weights are scaled to sum to 1)}."""

RECORDED = Path(__file__).with_name("splitting.json")


def run(arm: str, seed: int, frozen: bool = False, steps: int = 600) -> tiny.TinyRun:
    """Train one arm. All experts are computed for all tokens: at this size that is faster than sorting them."""
    num_experts, top_k, shared, renormalize = ARMS[arm]
    config = tiny.TinyConfig(d_ff=48 // num_experts, num_experts=num_experts, steps=steps)

    def gate(logits_TE: Tensor) -> tuple[Tensor, Tensor]:
        weights_TK, idx_TK = logits_TE[:, : num_experts - shared].softmax(dim=-1).topk(top_k)
        return (weights_TK / weights_TK.sum(dim=-1, keepdim=True) if renormalize else weights_TK), idx_TK

    return tiny.train(gate, seed, config, partial(_every_expert, shared=shared), frozen)


def _every_expert(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
    shared: int,
) -> Tensor:
    """The weighted sum of the chosen experts, and of the last `shared` ones with weight 1."""
    num_experts, d_model, d_ff = w_gate_EDF.shape
    gates_TE = x_TD.new_zeros(len(x_TD), num_experts).scatter(1, idx_TK, weights_TK)
    gates_TE = torch.cat([gates_TE[:, : num_experts - shared], x_TD.new_ones(len(x_TD), shared)], dim=1)
    gate_TX, up_TX = (x_TD @ w_EDF.transpose(0, 1).reshape(d_model, -1) for w_EDF in (w_gate_EDF, w_up_EDF))
    hidden_TX = F.silu(gate_TX) * up_TX * gates_TE.repeat_interleave(d_ff, dim=1)
    return hidden_TX @ w_down_EFD.reshape(-1, d_model)


def recorded() -> dict[str, dict[str, list[float]]]:
    """{arm: {"learned": final losses, "frozen": final losses}}, one loss for each of SEEDS, in nats."""
    losses: dict[str, dict[str, list[float]]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return losses


def record() -> str:
    """The text of splitting.json: every arm and its frozen twin, with every seed."""
    losses = {
        arm: {
            name: [round(run(arm, seed, frozen).final_loss, 4) for seed in SEEDS]
            for name, frozen in (("learned", False), ("frozen", True))
        }
        for arm in ARMS
    }
    rows = [f' "{arm}": {json.dumps(twins)}' for arm, twins in losses.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    files.write(RECORDED, record())
