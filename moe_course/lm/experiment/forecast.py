"""What a run will take, before it begins: its sizes, and its time judged by a few timed steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from moe_course.lm.experiment import bench
from moe_course.lm.experiment.recipe import Recipe
from moe_course.lm.experiment.trial import HELD_OUT, Text
from moe_course.lm.model.lm_config import TrainConfig
from moe_course.lm.training import costs, parallel
from moe_course.progress import clock_time
from moe_course.tables import text_table

TIMED_STEPS = 3
MOST_EPOCHS = 4
RESERVE = 0.05
"""The share of `--minutes` that stays unplanned: a machine is not always equally fast."""
_QUESTION_TOKENS = 4 * 32
"""About so many tokens has a question about a fact, with its four answers."""


@dataclass(frozen=True)
class Forecast:
    """Seconds of a training step, of an evaluation on held-out data, and of the measurement at the end."""

    step: float
    evaluation: float
    measurement: float

    def seconds(self, plan: TrainConfig) -> float:
        """What the whole run takes; saving and start are left out."""
        evaluations = -(-plan.steps // plan.eval_every)
        return plan.steps * self.step + evaluations * self.evaluation + self.measurement

    def steps(self, minutes: float, plan: TrainConfig) -> int:
        """As many steps as fit. Raises ValueError if these are fewer than two."""
        left = 60 * minutes * (1 - RESERVE) - self.measurement - self.evaluation
        steps = int(left / (self.step + self.evaluation / plan.eval_every))
        if steps < 2:
            least = (self.measurement + 2 * self.evaluation + 2 * self.step) / (1 - RESERVE) / 60
            raise ValueError(f"{minutes:.2g} minutes are left, and this model needs at least {least:.2g}")
        return steps


def forecast(recipe: Recipe, text: Text, device: torch.device) -> Forecast:
    """Time a few steps of the recipe's model, the same for all processes, on a copy and with random tokens.

    Evaluation is not timed: a token is taken to cost a third of one in training, which has a backward pass, too.
    """
    step = parallel.mean(torch.tensor(bench.step_seconds(recipe, device, TIMED_STEPS), device=device)).item()
    token = step / (recipe.batch_size * recipe.model.context) / 3
    measured = len(text.line(text.last_split(recipe.model.context)))
    asked = len(text.corpus.cloze) * _QUESTION_TOKENS
    return Forecast(step, HELD_OUT * recipe.model.context * token, (measured + asked) * token)


def within(minutes: float, recipe: Recipe, expected: Forecast) -> Recipe:
    """The recipe with as many steps as fit into `minutes`, and a schedule of that length."""
    return with_steps(recipe, expected.steps(minutes, recipe.plan))


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps; the warm-up is at most a tenth of them."""
    return replace(
        recipe, plan=replace(recipe.plan, steps=steps, warmup=min(recipe.plan.warmup, steps // 10))
    )


def epochs(recipe: Recipe, text: Text) -> float:
    """How often the run sees each token of the training split."""
    return recipe.tokens / len(text.line("train"))


def too_often(recipe: Recipe, text: Text) -> str:
    """What to say where that is more often than MOST_EPOCHS."""
    return (
        f"This run sees its text {epochs(recipe, text):,.1f} times. After about {MOST_EPOCHS} times a text teaches "
        "little that is new (Muennighoff et al. 2023, arXiv 2305.16264): take a larger one, or fewer steps."
    )


def table(recipe: Recipe, expected: Forecast, text: Text) -> str:
    """Sizes and costs of the run, one a line."""
    total, active = costs.num_params(recipe.model)
    each = costs.flops_per_token(recipe.model)
    per_step = recipe.batch_size * recipe.model.context
    rows = [
        ("parameters", f"{total:,} in all, {active:,} active"),
        ("FLOPs", f"{each:,} a token, {each * recipe.tokens / 1e12:,.1f} TFLOPs in all"),
        ("tokens", f"{recipe.tokens:,}: {recipe.plan.steps:,} steps of {per_step:,}"),
        ("text", f"{len(text.line('train')):,} tokens, each seen {epochs(recipe, text):,.1f} times"),
        (
            "learning rate",
            f"{recipe.plan.optimizer}, peak {recipe.plan.peak:g} after {recipe.plan.warmup} steps",
        ),
        (
            "expected time",
            f"{clock_time(expected.seconds(recipe.plan))}, with {expected.step:.3g} s a step "
            f"(median of {TIMED_STEPS} timed now)",
        ),
    ]
    return text_table([(recipe.name, ""), *rows], left=(0, 1))
