"""Figures say in their title what their data say, and come with a text for those who cannot see them."""

import base64
import re

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb

from moe_course import viz
from moe_course.lesson import tiny
from moe_course.lesson.timing import Sweep, Timing
from moe_course.moe.dispatch import plan_dispatch
from moe_course.moe.modern import group_limited_top_k
from moe_course.moe.router import switch_gate, top_k_gate
from moe_course.published import PRESETS
from moe_course.systems.accounting import breakdown, model_params, training_memory
from moe_course.systems.timeline import TIMELINE
from moe_course.viz import dispatch, interact, layer, legible
from moe_course.viz.style import EXPERT_COLORS, as_html, ink_on


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


@pytest.fixture(autouse=True)
def style():
    viz.use_style()
    yield
    plt.close("all")


def sweep_of(*ways):
    """Measurements made up: the loop takes 1 s and 3 s, the sorted way 1.5 s at both values."""
    seconds = {4: {"loop": 1.0, "sorted": 1.5}, 8: {"loop": 3.0, "sorted": 1.5}}
    spread = (0.9, 1.0, 1.2)
    times = {
        value: {way: Timing(tuple(row[way] * factor for factor in spread)) for way in ways}
        for value, row in seconds.items()
    }
    return Sweep("experts", times)


def figures():
    runs = [tiny.train(switch_gate, 0, tiny.TinyConfig(steps=25))]
    models = {name: model_params(PRESETS[name]) for name in ("mistral-7b", "mixtral-8x7b")}
    memory = {name: training_memory(PRESETS[name], 100) for name in models}
    alone, both = sweep_of("loop"), sweep_of("loop", "sorted")
    return {
        "gate_curves": (viz.gate_curves(), "negative"),
        "component_bars": (
            viz.component_bars(breakdown(PRESETS["mistral-7b"]), "Mistral 7B"),
            "78% of Mistral 7B",
        ),
        "capacity_curve": (
            viz.capacity_curve([2, 4], [(20, 11), (40, 12)], dense=10),
            "2 times the parameters, 1.09",
        ),
        "total_active_dots": (viz.total_active_dots(models), "mixtral-8x7b uses 28%"),
        "memory_bars": (viz.memory_bars(memory), "times the memory"),
        "routing_table": (
            viz.routing_table(torch.tensor([[0.2, 0.8], [0.6, 0.4]])),
            "Token 0 is surest: 80% for expert 1",
        ),
        "load_bars": (viz.load_bars(torch.tensor([0.25, 0.75])), "Expert 1 takes 75%"),
        "gradient_bars": (viz.gradient_bars(torch.tensor([0.2, -0.1]), [0]), "Unchosen"),
        "tiny_symptom": (viz.tiny_symptom({"a": runs, "b": runs}), "Final loss: b "),
        "split_symptom": (
            viz.split_symptom(dict(zip("ab", [*runs, *runs], strict=True)), {"a": [1, 2, 3], "b": [2, 1, 4]}),
            "Higher than above: 2 of 3",
        ),
        "frozen_twins": (
            viz.frozen_twins(
                {"a": {"learned": [1, 2], "frozen": [2, 1]}, "b": {"learned": [1, 1], "frozen": [2, 2]}}
            ),
            "Learning to route lowers the loss with 1, 2 of 2 seeds",
        ),
        "timeline": (viz.timeline(TIMELINE), "From 8 experts to 512 From 3.5 model widths to 0.25"),
        "group_choice": (
            viz.group_choice(torch.rand(6), torch.tensor([0, 2, 4]), torch.tensor([0, 1, 4]), num_groups=3),
            "1 of 3 experts change: 2 groups instead of 3",
        ),
        "design_map": (
            viz.design_map({"top": torch.eye(3), "none": torch.tensor([[1.0, 2], [0, 1], [0, 0]])}),
            "1 a token none\n0 to 2 a token",
        ),
        "label_tables": (
            viz.label_tables({"before": torch.full((3, 2), 0.5), "after": torch.eye(2)[[0, 1, 1]]}),
            "before: 50% after: 100%",
        ),
        "sorted_assignments": (
            viz.sorted_assignments(torch.tensor([[2, 0], [1, 2]]), torch.tensor([1, 2, 0, 3])),
            "4 assignments, sorted: expert 2 finds its 2",
        ),
        "layout_rows": (viz.layout_rows(torch.tensor([6, 0, 2]), 4, 2), "56% of the padded rows are empty"),
        "layout_rows uniform": (viz.layout_rows(torch.tensor([4, 4]), 4, 2), "One-hot: 1 times the rows"),
        "dispatch_times": (
            viz.dispatch_times(alone, flops={4: 10, 8: 10}),
            "2 times the experts: the same arithmetic, 3 times the time",
        ),
        "dispatch_times of two": (viz.dispatch_times(both), "of the loop's time:\nsorted 50%"),
        "dispatch_winners": (viz.dispatch_winners(both, both), "Fastest at 4: loop,\nat 8: sorted"),
    }


def test_every_title_states_what_the_data_say():
    for name, (figure, claim) in figures().items():
        assert claim in " ".join(titles(figure)), (name, titles(figure))
        assert figure.get_figwidth() <= 8, name
        for ax in figure.axes:
            assert ax.get_xlabel(), name


def test_a_figure_becomes_vector_graphics_with_alt_text():
    markup = as_html(viz.gate_curves(), "curves <of> gates")
    assert 'alt="curves &lt;of&gt; gates"' in markup
    data = re.search(r'base64,([^"]+)"', markup)[1]
    assert b"<svg" in base64.b64decode(data)
    assert plt.get_fignums() == []


def test_the_same_figure_gives_the_same_bytes():
    assert as_html(viz.gate_curves(), "a") == as_html(viz.gate_curves(), "a")


def test_alt_text_is_required():
    with pytest.raises(ValueError, match="alt text"):
        viz.show(viz.gate_curves(), alt=" ")


def test_the_explorer_draws_with_the_learners_own_gate():
    asked = []

    def mine(probs_TE, k, renormalize):
        asked.append((k, renormalize))
        return top_k_gate(probs_TE, k, renormalize)

    figure, alt = interact._gate_figure(mine, torch.randn(4, 3), k=2, temperature=0.5, renormalize=True)
    assert asked == [(2, True)]
    assert "weights sum to 1.00" in titles(figure)[0]
    assert "k = 2" in alt


def test_the_skew_explorer_draws_with_the_learners_own_plan():
    asked = []

    def mine(idx_TK, num_experts):
        asked.append((tuple(idx_TK.shape), num_experts))
        return plan_dispatch(idx_TK, num_experts)

    waste = []
    for skew in (0.0, 2.0, 4.0):
        figure, alt = dispatch._skew_figure(mine, skew, 64, 8, 2)
        waste.append(int(re.match(r"(\d+)%", titles(figure)[0])[1]))
        assert f"Skew {skew:g}" in alt
        assert "128 rows" in alt
    assert asked == [((64, 2), 8)] * 3
    assert waste == sorted(waste)
    assert waste[0] < waste[-1]


@pytest.mark.parametrize(("choice", "claim"), [([0] * 8, "5 of 8"), (list(interact._BEST), "8 of 8")])
def test_you_are_the_router_counts(choice, claim):
    figure, _ = interact._router_figure(choice)
    assert claim in titles(figure)[0]
    overflow = sum(max(0, choice.count(e) - interact.ROOM) for e in range(4))
    assert f"{overflow} without room" in titles(figure)[0]


def test_the_symptom_tells_rounding_from_a_gradient():
    runs = {
        gate: [tiny.train(gate, 0, tiny.TinyConfig(steps=15))]
        for gate in (tiny.renormalised_top1, switch_gate)
    }
    sick, cured = (titles(viz.tiny_symptom({"run": run}))[1] for run in runs.values())
    assert "rounding" in sick
    assert "rounding" not in cured


def test_ink_is_readable_on_every_expert():
    """Contrast of at least 4.5, which WCAG 2.1 asks of text."""
    for color in EXPERT_COLORS:
        light, dark = sorted((_luminance(color), _luminance(ink_on(color))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color


def _luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_panels_bring_a_static_figure_for_readers(monkeypatch):
    """Front ends without widgets show the HTML: the figure as it starts. With nobody there, there is no panel."""
    shown = []
    monkeypatch.delenv("MOE_COURSE_STATIC", raising=False)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.setattr(interact, "publish_display_data", shown.append)
    interact.you_are_the_router()
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert "<img" in shown[0]["text/html"]
    assert "overflow" in shown[0]["text/plain"]

    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    monkeypatch.setattr(interact, "show", lambda figure, alt: shown.append(alt))
    interact.gate_explorer(top_k_gate, torch.randn(4, 3))
    assert "k = 2" in shown[1]
    assert len(shown) == 2


def test_the_group_explorer_asks_the_learners_own_function(monkeypatch):
    asked, shown = [], []

    def mine(scores_TE, bias_E, num_groups, top_groups, k):
        asked.append((num_groups, top_groups, k))
        return group_limited_top_k(scores_TE, bias_E, num_groups, top_groups, k)

    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    monkeypatch.setattr(interact, "show", lambda figure, alt: shown.append((titles(figure), alt)))
    viz.group_explorer(mine, torch.rand(8), torch.zeros(8), num_groups=4, k=3)
    assert asked == [(4, 4, 3), (4, 3, 3)]
    assert "of 3 experts change" in shown[0][0][0]
    assert "3 open groups" in shown[0][1]


def test_the_title_over_the_gradients_names_who_learns():
    """Once one arm learns, the title no longer says that the panel shows rounding."""
    silent = [tiny.train(tiny.renormalised_top1, 0, tiny.TinyConfig(steps=25))]
    learning = [tiny.train(switch_gate, 0, tiny.TinyConfig(steps=25))]
    assert "rounding, not learning" in titles(viz.tiny_symptom({"old": silent}))[1]
    figure = viz.tiny_symptom({"renormalised": silent, "switch": learning})
    assert titles(figure)[1] == "Only the router of switch learns"
    assert legible.faults(figure) == []


@pytest.mark.parametrize("part", layer.PARTS)
def test_a_part_of_the_drawn_layer_is_lit(part):
    figure = viz.moe_layer(part)
    assert titles(figure) == [layer.PARTS[part]]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert ("shared" in words) == (part == "shared")
    assert words.count("✕") == (part == "capacity")
    assert {"router", "expert 0", "expert 7", "residual", "Σ"} <= {*words}
    assert legible.faults(figure) == []


def test_a_part_that_is_not_there():
    with pytest.raises(ValueError, match="no part 'attention'"):
        viz.moe_layer("attention")


def test_the_tiny_model_is_drawn():
    figure = viz.tiny_model()
    assert legible.faults(figure) == []
    assert [t.get_text() for t in figure.axes[0].texts].count("router") == 1
