"""The pages that run in the browser: their arithmetic against the library's, their controls, and who can use them."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from synthetic import ROOT

from moe_course.lesson import collapse
from moe_course.moe.balance import biased_top_k, expert_choice, load_balancing_loss, update_bias
from moe_course.moe.capacity import (
    batch_priority_positions,
    drop_and_waste,
    expert_capacity,
    positions_in_expert,
    token_major_positions,
)
from moe_course.moe.counts import expert_counts
from moe_course.moe.metrics import max_violation
from moe_course.moe.router import top_k_gate
from moe_course.viz.style import EXPERT_COLORS, ink_on

pytestmark = pytest.mark.browser
SITE = ROOT / "site"
GAME, LAB = "you_are_the_router", "collapse_lab"
EXPERTS = 4
FILLS = {
    "token-major": lambda idx_TK, weights_TK: token_major_positions(idx_TK, EXPERTS),
    "choice-major": lambda idx_TK, weights_TK: positions_in_expert(idx_TK, EXPERTS),
    "priority": lambda idx_TK, weights_TK: batch_priority_positions(idx_TK, weights_TK, EXPERTS),
}


@pytest.fixture
def open_page(browser, tmp_path):
    """A function that opens the HTML part of a page, without the site. It may ask for files only, and not fail."""
    context = browser.new_context()
    asked, errors = [], []

    def open_(name, scheme="light", width=800, motion="reduce"):
        text = (SITE / "taste" / f"{name}.md").read_text(encoding="utf-8")
        (part,) = re.findall(r"```\{raw\} html\n(.*?)```", text, re.DOTALL)
        part = part.replace("../_static", (SITE / "_static").as_uri())
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Taste</title>'
        paper = "white" if scheme == "light" else "#131416"
        body = f'<body style="background: {paper}; margin: 1rem"><main>{part}</main></body>'
        file = tmp_path / f"{name}.html"
        file.write_text(f'<!doctype html><html lang="en">{head}{body}</html>', encoding="utf-8")
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme, reduced_motion=motion)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(file.as_uri())
        return page

    yield open_
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith("file:")] == []


def ask(page, body, **data):
    """What the body of a JavaScript function of `data` returns; JSON keeps float64 to the last bit."""
    script = f"text => {{ const data = JSON.parse(text); return JSON.stringify((() => {{ {body} }})()); }}"
    return json.loads(page.evaluate(script, json.dumps(data)))


CASES = [(0, 2, 1.0), (1, 2, 0.75), (2, 3, 0.5), (3, 2, 1.0), (4, 1, 1.25), (7, 1, 0.5)]
ROUTE = """
  const { routing, game } = taste;
  return data.cases.map(([seed, k, factor]) => {
    const { logits_TE, probs_TE } = game.deal(seed);
    const room = routing.capacity(probs_TE.length, 4, k, factor);
    const choices = game.rivals(probs_TE, k, room);
    const fills = ["token-major", "choice-major", "priority"];
    const one = (assignments) => fills.map((fill) => {
      const seated = routing.seat(assignments, fill, 4, room);
      return { seated, measured: routing.measure(seated, probs_TE) };
    });
    return { logits_TE, probs_TE, room, routers: Object.values(choices).map(one) };
  });
"""


@pytest.fixture(scope="module")
def routed(browser):
    """What the page computes for each of CASES."""
    page = browser.new_page()
    for name in ("random", "routing", "page", "router_game"):
        page.add_script_tag(path=SITE / "_static" / "taste" / f"{name}.js")
    yield dict(zip(CASES, ask(page, ROUTE, cases=CASES), strict=True))
    page.close()


def matrix(seated, k, value):
    """Assignments as a (T, K) tensor of one of their values."""
    cells = {(a["token"], a["slot"]): a[value] for a in seated}
    return torch.tensor([[cells[t, slot] for slot in range(k)] for t in range(len(cells) // k)])


def agrees(got, want, rtol=1e-12):
    np.testing.assert_allclose(np.array(got), want.numpy(), rtol=rtol)


@pytest.mark.parametrize("case", CASES)
def test_a_router_chooses_queues_and_is_measured_as_in_the_library(routed, case):
    _, k, factor = case
    said = routed[case]
    probs_TE = torch.tensor(said["logits_TE"], dtype=torch.float64).softmax(dim=-1)
    agrees(said["probs_TE"], probs_TE)
    assert said["room"] == expert_capacity(len(probs_TE), EXPERTS, k, factor)

    bias_E = torch.zeros(EXPERTS, dtype=torch.float64)
    for _ in range(200):
        idx_TK = biased_top_k(probs_TE, bias_E, k)[1]
        bias_E = update_bias(bias_E, expert_counts(idx_TK, EXPERTS), rate=0.01)
    choices = [top_k_gate(probs_TE, k, renormalize=False)[1], biased_top_k(probs_TE, bias_E, k)[1]]
    for idx_TK, router in zip(choices, said["routers"], strict=False):
        weights_TK = probs_TE.gather(1, idx_TK)
        for (fill, positions), result in zip(FILLS.items(), router, strict=True):
            seated, measured = result["seated"], result["measured"]
            assert torch.equal(matrix(seated, k, "expert"), idx_TK)
            pos_TK = positions(idx_TK, weights_TK)
            assert torch.equal(matrix(seated, k, "place"), pos_TK), fill
            kept_TK = pos_TK < said["room"]
            assert torch.equal(matrix(seated, k, "kept"), kept_TK)
            agrees(measured["quality"], (weights_TK * kept_TK).sum())
            assert measured["dropped"] / idx_TK.numel() == drop_and_waste(idx_TK, EXPERTS, said["room"])[0]
            assert measured["unserved"] == int((~kept_TK.any(dim=1)).sum())
            agrees(measured["violation"], max_violation(expert_counts(idx_TK, EXPERTS).double()))
            agrees(measured["loss"], load_balancing_loss(probs_TE, idx_TK), rtol=1e-6)  # its f is float32


@pytest.mark.parametrize("case", CASES)
def test_experts_that_choose_take_the_tokens_that_the_library_gives_them(routed, case):
    said = routed[case]
    probs_TE = torch.tensor(said["probs_TE"], dtype=torch.float64)
    weights_EC, idx_EC = expert_choice(probs_TE, said["room"])
    for result in said["routers"][2]:
        seats = {(a["expert"], a["slot"]): a["token"] for a in result["seated"]}
        assert [[seats[e, slot] for slot in range(said["room"])] for e in range(EXPERTS)] == idx_EC.tolist()
        agrees(result["measured"]["quality"], weights_EC.sum())
        assert result["measured"]["dropped"] == 0
        assert result["measured"]["unserved"] == len(probs_TE) - len(idx_EC.unique())


def most(probs_TE, k, room):
    """The largest sum of gates of at most k experts a token and `room` tokens an expert: all ways, token by token."""
    subsets = [s for n in range(k + 1) for s in itertools.combinations(range(EXPERTS), n)]
    best = {(0,) * EXPERTS: 0.0}
    for probs_E in probs_TE:
        after = {}
        for load, total in best.items():
            for chosen in subsets:
                grown = tuple(n + (e in chosen) for e, n in enumerate(load))
                if max(grown) <= room:
                    after[grown] = max(after.get(grown, 0), total + sum(probs_E[e] for e in chosen))
        best = after
    return max(best.values())


@pytest.mark.parametrize("case", CASES)
def test_best_possible_is_the_best_of_all_choices(routed, case):
    _, k, factor = case
    said = routed[case]
    quality = said["routers"][3][0]["measured"]["quality"]
    assert quality == pytest.approx(most(said["probs_TE"], k, said["room"]))
    biased = said["routers"][1][0]["measured"]
    if (
        factor == 1 and biased["violation"] == 0
    ):  # the page says so: an even load through a bias is the best even load
        assert biased["quality"] == pytest.approx(quality)


def test_a_bias_made_some_load_even(routed):
    even = [case for case in CASES if routed[case]["routers"][1][0]["measured"]["violation"] == 0]
    assert any(factor == 1 for _, _, factor in even)


def test_who_queues_first_decides_who_is_dropped_and_not_how_many(routed):
    """The third experiment of the page, with seed 0."""
    greedy = [result["measured"] for result in routed[0, 2, 1.0]["routers"][0]]
    assert len({measured["dropped"] for measured in greedy}) == 1
    assert greedy[0]["dropped"] > 0
    assert len({measured["quality"] for measured in greedy}) == 3


def test_ties_capacities_biases_and_colours(open_page):
    page = open_page(GAME)
    assert ask(page, "return taste.routing.topK([[0.25, 0.25, 0.25, 0.25]], 2).map((a) => a.expert)") == [
        0,
        1,
    ]
    assert ask(
        page, "return taste.routing.expertChoice([[0.5, 0.5], [0.5, 0.5]], 1).map((a) => a.token)"
    ) == [0, 0]
    grid = list(itertools.product((10, 100, 12), (4, 7), (1, 2, 3), (0.1, 0.5, 1.1, 1.25)))
    assert ask(page, "return data.grid.map((c) => taste.routing.capacity(...c))", grid=grid) == [
        expert_capacity(*c) for c in grid
    ]
    bias_E, counts_E = [0.5, -0.25, 0.0], [5, 1, 3]
    moved = ask(
        page, "return taste.routing.updateBias(data.bias, data.counts, 0.1)", bias=bias_E, counts=counts_E
    )
    agrees(moved, update_bias(torch.tensor(bias_E, dtype=torch.float64), torch.tensor(counts_E), 0.1))
    looks = ask(page, "return taste.page.EXPERT_COLORS.map((c) => [c, taste.page.inkOn(c)])")
    assert looks == [[color, ink_on(color)] for color in EXPERT_COLORS]


class Recorded(collapse._Problem):
    """The problem of the lab, with a record of all numbers that are drawn for its only seed."""

    def __init__(self, *args):
        self.drawn = []
        self.words = []
        super().__init__(*args)

    def normal(self, *shape):
        values = super().normal(*shape)
        self.drawn.append(values.flatten().tolist())
        return values

    def points(self):
        x_BTD, y_BTD, word_BT = super().points()
        self.words.append((word_BT[0] % collapse.WORDS).tolist())
        return x_BTD, y_BTD, word_BT


REPLAY = """
  const next = (list) => { let at = 0; return () => list[at++]; };
  return data.arms.map(([weight, rate]) => {
    const [normal, words] = [next(data.drawn), next(data.words)];
    const source = { normal: () => Float64Array.from(normal()), integers: words };
    const lab = new taste.collapse.Lab(source, data.settings);
    const history = data.words.map(() => lab.step(weight, rate));
    const dead = history.map((_, i) => taste.collapse.dead(history.slice(0, i + 1).map((s) => s.counts_E)));
    return { loss: history.map((s) => s.taskLoss), counts: history.map((s) => s.counts_E), dead };
  });
"""


def test_the_lab_trains_as_the_lab_of_the_course_does(open_page, monkeypatch):
    """The same numbers drawn, on batches of half the size: without help, with a loss, and with both remedies."""
    arms = [(0, 0), (0.1, 0), (0.3, 0.02)]
    config = collapse.CollapseConfig(steps=30, points=128, offset=0.75)
    problems = []
    monkeypatch.setattr(collapse, "_Problem", lambda *args: problems.append(Recorded(*args)) or problems[-1])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        runs = [collapse.train(arm(*setting), seeds=(3,), config=config) for setting in arms]
    finally:
        torch.set_default_dtype(before)
    problem = problems[0]
    assert all(other.drawn == problem.drawn for other in problems)

    data = {"arms": arms, "drawn": problem.drawn, "words": problem.words}
    data["settings"] = {"offset": config.offset, "points": config.points}
    for run, said in zip(runs, ask(open_page(LAB), REPLAY, **data), strict=True):
        load = torch.tensor(said["counts"], dtype=torch.float64) / config.points
        assert torch.equal(load[:-1], run.load[0])
        agrees(said["loss"][:-1], run.task_loss[0], rtol=1e-9)
        agrees(said["loss"][-1:], run.final_loss, rtol=1e-9)
        assert torch.equal(load[-1], run.final_load[0])
        assert [sum(dead) for dead in said["dead"][:-1]] == run.dead_by_step[0].tolist()


def arm(weight, rate):
    return collapse.Arm(
        extra_loss=lambda logits_TE, idx_TK: weight * load_balancing_loss(logits_TE.softmax(-1), idx_TK),
        select=lambda probs_TE, bias_E: biased_top_k(probs_TE, bias_E, 1)[1],
        update=lambda bias_E, counts_E: update_bias(bias_E, counts_E, rate),
    )


def test_with_the_page_s_own_numbers_a_router_collapses_and_a_remedy_prevents_it(open_page):
    dead = ask(
        open_page(LAB),
        """
        const gone = (seed, weight, rate) => {
          const lab = new taste.collapse.Lab(taste.random.source(seed));
          const counts_SE = Array.from({ length: 70 }, () => lab.step(weight, rate).counts_E);
          return taste.collapse.dead(counts_SE).filter(Boolean).length;
        };
        return Object.values(taste.lab.PRESETS).map((setting) => [0, 2].map((seed) => gone(seed, ...setting)));
        """,
    )
    assert min(dead[0]) >= 2
    assert dead[1:] == [[0, 0], [0, 0]]


def said_by(page):
    return page.locator(".taste-live").inner_text()


def test_the_game_is_played_with_the_keyboard(open_page):
    page = open_page(GAME)
    page.get_by_label("k, experts a token").press("ArrowRight")
    page.get_by_label("Who queues first").select_option("choice-major")
    page.get_by_role("button", name="Expert 0").focus()
    page.keyboard.press("Enter")
    assert "has slot 1 of 6 at expert 0" in said_by(page)
    page.keyboard.press("0")
    assert "Choose another one" in said_by(page)
    page.keyboard.press("Backspace")
    assert said_by(page) == "“twelve” is back."
    sent = [(0, 1), (1, 0), (1, 0), (1, 0), (1, 2), (1, 0), (2, 1), (3, 1), (3, 1), (3, 1), (0, 2), (1, 3)]
    news = []
    for expert in itertools.chain(*sent):
        page.keyboard.press(str(expert))
        news.append(said_by(page))
    assert any("is dropped there" in text for text in news)
    assert any("It pushed out “" in text for text in news)
    assert re.search(r"You kept \d+% of what is possible", news[-1])

    probs_TE = torch.tensor(ask(page, "return taste.game.deal(0).probs_TE"), dtype=torch.float64)
    idx_TK = torch.tensor(sent)
    weights_TK = probs_TE.gather(1, idx_TK)
    kept_TK = positions_in_expert(idx_TK, EXPERTS) < expert_capacity(12, EXPERTS, 2, 1.0)
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="You", exact=True))
    assert row.get_by_role("cell").all_inner_texts() == [
        f"{(weights_TK * kept_TK).sum():.2f}",
        str(int((~kept_TK).sum())),
        f"{max_violation(expert_counts(idx_TK, EXPERTS)):.2f}",
        f"{load_balancing_loss(probs_TE, idx_TK):.2f}",
    ]
    assert page.locator(".taste-dropped").count() == int((~kept_TK).sum())
    assert page.locator(".taste-insight li").count() >= 1


def test_other_routers_are_shown_on_the_board_and_the_own_game_comes_back(open_page):
    page = open_page(GAME)
    page.get_by_role("button", name="Expert 2").press("Enter")
    page.get_by_role("button", name="Top-1", exact=True).press("Enter")
    assert page.locator(".taste-kept, .taste-dropped").count() == 12
    page.keyboard.press("1")
    assert said_by(page) == "This is your own board again."
    assert page.locator(".taste-kept").all_inner_texts() == ["twelve"]
    page.get_by_role("button", name="Best possible").press("Enter")
    page.get_by_role("button", name="Top-k for the rest").press("Enter")
    assert "You kept" in said_by(page)
    page.get_by_role("button", name="New tokens").press("Enter")
    assert page.locator(".taste-kept").count() == 0
    assert page.get_by_label("Seed").input_value() == "1"


def test_the_best_choice_is_a_perfect_game(open_page):
    page = open_page(GAME)
    best = ask(page, "return taste.routing.best(taste.game.deal(0).probs_TE, 1, 3).map((a) => a.expert)")
    page.get_by_role("button", name="Expert 0").focus()
    for expert in best:
        page.keyboard.press(str(expert))
    assert "You kept as much as is possible" in said_by(page)


def test_the_lab_runs_pauses_steps_resets_and_rescues(open_page):
    page = open_page(LAB)
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # from here on timers wait for run_for

    def numbers():
        return dict(
            zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True)
        )

    page.get_by_role("button", name="Step").press("Enter")
    assert said_by(page).startswith("Step 1: task loss")
    page.get_by_role("button", name="Run", exact=True).press("Enter")
    page.clock.run_for(1000)
    assert said_by(page).startswith("Step 400: task loss")
    collapsed = numbers()
    assert collapsed["Step"] == "400"
    assert collapsed["Dead experts"] != "0 of 8"
    assert page.locator(".taste-gone").count() == int(collapsed["Dead experts"][0])
    page.get_by_role("button", name="Bias 0.02").press("Enter")
    assert page.get_by_label("Bias rate").get_attribute("aria-valuetext") == "0.02"
    page.get_by_role("button", name="Run 400 more").press("Enter")
    page.clock.run_for(60)  # with reduced motion, 100 steps at once and then a pause of 50 ms
    page.get_by_role("button", name="Pause").press("Enter")
    page.clock.run_for(1000)
    assert numbers()["Step"] == "600"
    assert said_by(page).startswith("Step 600: task loss")
    assert page.locator(".taste-change").count() == 1
    page.get_by_label("Loss weight").press("ArrowRight")
    assert page.get_by_role("button", name="Bias 0.02").get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Reset").press("Enter")
    assert numbers()["Step"] == "0"
    assert page.locator(".taste-before").get_attribute("d")
    page.get_by_label("Offset").press("ArrowLeft")
    assert ask(page, "return taste.lab.current.lab.offset") == 0.75


@pytest.mark.parametrize("name", [GAME, LAB])
@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1200)])
def test_everybody_can_use_the_page(open_page, name, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(name, scheme, width)
    page.get_by_role("button", name="Top-k for the rest" if name == GAME else "Step").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = "node => node.getBoundingClientRect().right > innerWidth"
    assert (
        page.locator(".taste *:not(.taste-hidden)").evaluate_all(f"nodes => nodes.filter({outside}).length")
        == 0
    )
    found = axe.run(page, ".taste", {"preload": False}).response["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
    assert page.evaluate("getComputedStyle(document.querySelector('.taste')).color") == (
        "rgb(36, 41, 47)" if scheme == "light" else "rgb(207, 208, 208)"
    )


def test_nothing_moves_for_those_who_ask_for_rest(open_page):
    for motion, moving in (("reduce", False), ("no-preference", True)):
        page = open_page(GAME, motion=motion)
        page.get_by_role("button", name="Expert 0").click()
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert (page.evaluate(style.format(".taste-bar span", "transitionDuration")) != "0s") == moving
        assert (page.evaluate(style.format(".taste-kept", "animationName")) != "none") == moving
