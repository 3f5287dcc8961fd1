"""Each formula of docs/cheat_sheet.md, written out by hand here, gives the number of the function beside it."""

import math
import re
from pathlib import Path

import pytest
import torch

from moe_course import analysis, moe
from moe_course.authoring.markup import as_html
from moe_course.lm.training.objective import bits_per_byte
from moe_course.published import model
from moe_course.systems import accounting, communication, footprint, serving

SHEET = (Path(__file__).parents[1] / "docs" / "cheat_sheet.md").read_text(encoding="utf-8")
ROWS = {
    name: formula for formula, name in re.findall(r"^\| .+? \| \$(.+)\$ \| `(\w+)` \|$", SHEET, re.MULTILINE)
}

T, D, F, E, K, S = 6, 3, 5, 4, 2, 1
G = torch.Generator().manual_seed(0)
X, W, NOISE_W = (torch.randn(shape, generator=G) for shape in ((T, D), (D, E), (D, E)))
EPS, BIAS = torch.randn((T, E), generator=G), torch.randn(E, generator=G)
Z = [[sum(X[t, d].item() * W[d, e].item() for d in range(D)) for e in range(E)] for t in range(T)]
P = [[math.exp(z) / sum(map(math.exp, row)) for z in row] for row in Z]
PROBS = torch.tensor(P)
CHOSEN = [sorted(range(E), key=lambda e: -row[e])[:K] for row in P]
IDX = torch.tensor(CHOSEN)
COUNTS = [sum(e in chosen for chosen in CHOSEN) for e in range(E)]
MEAN = sum(COUNTS) / E
TABLE = [[3, 1, 0], [2, 2, 4]]
LABELS = torch.tensor([0, 0, 1, 1, 0, 1])
KEPT = sum(min(n, 2) for n in COUNTS)
DRAWS = (IDX[:, 0], LABELS, torch.arange(T), 2, E, 9)


def softplus_row(t, e):
    return math.log(1 + math.exp(sum(X[t, d].item() * NOISE_W[d, e].item() for d in range(D))))


def shuffled():
    null = analysis.permutation_null(*DRAWS, torch.Generator().manual_seed(1))
    observed = analysis.mutual_information(analysis.routing_counts(DRAWS[0][:, None], LABELS, 2, E))
    return (1 + int((null >= observed - 1e-9).sum())) / (1 + 9)


def bits():
    whole = sum(map(sum, TABLE))
    columns = [sum(column) for column in zip(*TABLE, strict=True)]
    cells = [(n, sum(row), columns[e]) for row in TABLE for e, n in enumerate(row) if n]
    return sum(n / whole * math.log2(n * whole / (row * column)) for n, row, column in cells)


CASES = {  # name: (the formula, its value by hand, the library's)
    "router_probs": (
        r"p_{te} = \frac{e^{z_{te}}}{\sum_{j=1}^{E} e^{z_{tj}}}, \quad z = x_{TD} W_{DE}",
        lambda: P,
        lambda: moe.router_probs(X, W),
    ),
    "top_k_gate": (
        r"g_{te} = \frac{p_{te}}{\sum_{j \in \mathcal{K}_t} p_{tj}}",
        lambda: [[row[e] / sum(row[j] for j in c) for e in c] for row, c in zip(P, CHOSEN, strict=True)],
        lambda: moe.top_k_gate(PROBS, K)[0],
    ),
    "noisy_logits": (
        r"z_{te} + \varepsilon_{te} \ln(1 + e^{(x W^{noise})_{te}})",
        lambda: [[Z[t][e] + EPS[t, e].item() * softplus_row(t, e) for e in range(E)] for t in range(T)],
        lambda: moe.noisy_logits(X, W, NOISE_W, EPS, training=True),
    ),
    "biased_top_k": (
        r"\mathcal{K}_t = \mathrm{top}_K(p_{te} + b_e)",
        lambda: [sorted(range(E), key=lambda e: -(row[e] + BIAS[e].item()))[:K] for row in P],
        lambda: moe.biased_top_k(PROBS, BIAS, K)[1],
    ),
    "expert_load": (
        r"f_e = \frac{n_e}{T K}",
        lambda: [n / (T * K) for n in COUNTS],
        lambda: moe.expert_load(IDX, E),
    ),
    "load_balancing_loss": (
        r"E \sum_e f_e P_e, \quad P_e = \frac{1}{T} \sum_t p_{te}",
        lambda: E * sum(COUNTS[e] / (T * K) * sum(row[e] for row in P) / T for e in range(E)),
        lambda: moe.load_balancing_loss(PROBS, IDX),
    ),
    "router_z_loss": (
        r"\frac{1}{T} \sum_t \left( \ln \sum_e e^{z_{te}} \right)^2",
        lambda: sum(math.log(sum(map(math.exp, row))) ** 2 for row in Z) / T,
        lambda: moe.router_z_loss(torch.tensor(Z)),
    ),
    "max_violation": (
        r"\frac{\max_e n_e}{\bar{n}} - 1",
        lambda: max(COUNTS) / MEAN - 1,
        lambda: moe.max_violation(torch.tensor(COUNTS)),
    ),
    "cv_squared": (
        r"\frac{1}{E} \sum_e \frac{(n_e - \bar{n})^2}{\bar{n}^2}",
        lambda: sum((n - MEAN) ** 2 / MEAN**2 for n in COUNTS) / E,
        lambda: moe.cv_squared(torch.tensor(COUNTS)),
    ),
    "update_bias": (
        r"b_e + u \cdot \mathrm{sign}(\bar{n} - n_e)",
        lambda: [b + 0.1 * ((n < MEAN) - (n > MEAN)) for b, n in zip(BIAS.tolist(), COUNTS, strict=True)],
        lambda: moe.update_bias(BIAS, torch.tensor(COUNTS), 0.1),
    ),
    "expert_capacity": (
        r"C = \left\lceil \frac{T K}{E} \cdot \text{factor} \right\rceil",
        lambda: math.ceil(T * K / E * 1.25),
        lambda: moe.expert_capacity(T, E, K, 1.25),
    ),
    "drop_and_waste": (
        r"1 - \frac{\sum_e \min(n_e, C)}{T K}, \quad 1 - \frac{\sum_e \min(n_e, C)}{E C}",
        lambda: [1 - KEPT / (T * K), 1 - KEPT / (E * 2)],
        lambda: moe.drop_and_waste(IDX, E, 2),
    ),
    "ffn_params": (r"3 D F", lambda: 3 * D * F, lambda: accounting.ffn_params(D, F)),
    "ffn_flops": (r"2 \cdot T \cdot 3 D F", lambda: 2 * T * 3 * D * F, lambda: accounting.ffn_flops(T, D, F)),
    "moe_ffn_params": (
        r"D E + (E + K_s) 3 D F, \quad D E + (K + K_s) 3 D F",
        lambda: [D * E + (E + S) * 3 * D * F, D * E + (K + S) * 3 * D * F],
        lambda: accounting.moe_ffn_params(D, F, E, K, S),
    ),
    "active_matched_d_ff": (
        r"F = \frac{F_{dense}}{K + K_s}",
        lambda: 12 / (K + S),
        lambda: accounting.active_matched_d_ff(12, K, S),
    ),
    "all_to_all_bytes": (
        r"T K D\, b \cdot \frac{R - 1}{R}",
        lambda: T * K * D * 2 * (8 - 1) / 8,
        lambda: communication.all_to_all_bytes(T, K, D, 2, 8),
    ),
    "tensor_parallel_bytes": (
        r"2 (R - 1)\, T D\, b",
        lambda: 2 * (8 - 1) * T * D * 2,
        lambda: communication.tensor_parallel_bytes(T, D, 2, 8),
    ),
    "expected_distinct_nodes": (
        r"M \left( 1 - \prod_{k=0}^{K-1} \frac{E - E/M - k}{E - k} \right)",
        lambda: 4 * (1 - math.prod((16 - 16 / 4 - k) / (16 - k) for k in range(3))),
        lambda: communication.expected_distinct_nodes(16, 3, 4),
    ),
    "step_time": (
        r"\max_r n_r \cdot \tau + 2 \left( \text{latency} + \frac{\text{bytes}}{\text{bandwidth}} \right)",
        lambda: 7 * 0.5 + 2 * (0.25 + 30 / 10),
        lambda: communication.step_time(torch.tensor([3, 7, 5]), 0.5, 30, 10, 0.25),
    ),
    "expected_distinct_experts": (
        r"E \left( 1 - \left( 1 - \frac{K}{E} \right)^B \right)",
        lambda: E * (1 - (1 - K / E) ** 3),
        lambda: serving.expected_distinct_experts(E, K, 3),
    ),
    "decode_bytes": (
        r"\text{fixed} + L \cdot \text{experts read} \cdot \text{bytes of one} + B \cdot \text{cache}",
        lambda: 100 + 5 * E * (1 - (1 - K / E) ** 3) * 10 + 3 * 7,
        lambda: serving.decode_bytes(100, 10, 5, E, K, 3, 7),
    ),
    "decode_seconds": (
        r"\max \left( \frac{\text{bytes}}{\text{bandwidth}}, "
        r"\frac{2 \cdot \text{active} \cdot B}{\text{peak}} \right)",
        lambda: [max(80 / 10, 2 * 30 * b / 20) for b in (1, 9)],
        lambda: [serving.decode_seconds(80, 30, b, 10, 20) for b in (1, 9)],
    ),
    "kv_values_per_token": (
        r"2 L \cdot H \cdot D_{head}",
        lambda: 2 * 32 * 8 * 128,  # Mixtral 8x7B's config.json: layers, key-value heads, 4096 / 32 heads
        lambda: footprint.kv_values_per_token(model("mixtral-8x7b")),
    ),
    "tokens_per_verification": (
        r"\frac{1 - \alpha^{\gamma + 1}}{1 - \alpha}",
        lambda: (1 - 0.8**5) / (1 - 0.8),
        lambda: footprint.tokens_per_verification(0.8, 4),
    ),
    "mutual_information": (
        r"\sum_{g,e} p(g,e) \log_2 \frac{p(g,e)}{p(g)\, p(e)}",
        bits,
        lambda: analysis.mutual_information(torch.tensor(TABLE)),
    ),
    "permutation_p_value": (
        r"\frac{1 + \#\{\text{null} \ge \text{observed}\}}{1 + Q}",
        shuffled,
        lambda: analysis.permutation_p_value(*DRAWS, torch.Generator().manual_seed(1)),
    ),
    "bits_per_byte": (
        r"\frac{\text{nats per token}}{\ln 2} \cdot \frac{\text{tokens}}{\text{bytes}}",
        lambda: 2.5 / math.log(2) * 100 / 320,
        lambda: bits_per_byte(2.5, 100, 320),
    ),
}


def test_the_sheet_has_these_formulas_and_no_others():
    assert {name: formula for name, (formula, _, _) in CASES.items()} == ROWS
    assert SHEET.count("$ | `") == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_formula_gives_the_librarys_number(name):
    _, by_hand, library = CASES[name]
    found = torch.as_tensor(library(), dtype=torch.float64)
    torch.testing.assert_close(found, torch.tensor(by_hand(), dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_all_of_it_is_latex_and_no_command_is_left_over():
    markup = as_html(SHEET)
    assert markup.count("<math") >= len(CASES)
    assert "$" not in markup
    for wrong in (r"$a_b_c$", r"$\nosuch{1}$", r"$\left( x$"):
        with pytest.raises(ValueError, match="is not LaTeX"):
            as_html(wrong)
