"""From logits to tokens."""

import pytest
import torch
from lm.small import CONTEXT, V, make

from moe_course.lm import generate, sample_next
from moe_course.lm.model.transformer import evaluating

torch.set_num_threads(1)

PROBS_V = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])


def draws(top_p, temperature=1.0, times=400, seed=0, probs_V=PROBS_V):
    rng = torch.Generator().manual_seed(seed)
    return [sample_next(probs_V.log(), temperature, top_p, rng) for _ in range(times)]


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [(0, {1}), (0.39, {1}), (0.41, {1, 3}), (0.69, {1, 3}), (0.71, {1, 3, 4}), (1, {0, 1, 2, 3, 4})],
)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p, nucleus):
    assert set(draws(top_p)) == nucleus


def test_inside_the_nucleus_probabilities_keep_their_ratio():
    drawn = draws(0.65, times=4000)
    assert drawn.count(1) / len(drawn) == pytest.approx(4 / 7, abs=0.04)  # five standard deviations


def test_temperature_sharpens_and_flattens():
    """At temperature 1/2 probabilities are squared, at 2 they are square roots, before they are normalised."""
    for temperature, power in ((0.5, 2), (2, 0.5)):
        expected = PROBS_V[1] ** power / (PROBS_V**power).sum()
        drawn = draws(1, temperature, times=4000)
        assert drawn.count(1) / len(drawn) == pytest.approx(expected.item(), abs=0.04)


def test_temperature_zero_is_greedy_and_draws_nothing():
    rng = torch.Generator().manual_seed(0)
    state = rng.get_state()
    assert sample_next(PROBS_V, 0, 0.9, rng) == 1
    assert torch.equal(rng.get_state(), state)
    assert set(draws(1, temperature=1e-30, times=20)) == {1}, "and hardly above it too"


def test_the_generator_decides():
    assert draws(1, seed=1) == draws(1, seed=1) != draws(1, seed=2)


def test_impossible_tokens_are_never_drawn():
    assert 2 not in draws(1, probs_V=torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("temperature", "top_p", "complaint"),
    [(-0.1, 0.5, r"temperature .* got -0\.1"), (1, 1.1, r"top_p .* got 1\.1"), (1, -1, "top_p .* got -1"),
     (float("nan"), 0.5, "temperature .* got nan"), (1, float("nan"), "top_p .* got nan")],
)  # fmt: skip
def test_an_error_names_the_value(temperature, top_p, complaint):
    with pytest.raises(ValueError, match=complaint):
        sample_next(PROBS_V, temperature, top_p, torch.Generator())


@pytest.mark.parametrize("ffn", ["dense", "everything"])
def test_generating_with_the_cache_equals_computing_all_again(ffn):
    model = make(ffn, seed=2)
    with torch.no_grad():
        model.head.weight.mul_(30)  # opinions, so that no two tokens are nearly as likely
    prompt = [3, 1, 4]
    text = list(prompt)
    for _ in range(CONTEXT - len(prompt)):
        with evaluating(model):
            text.append(int(model(torch.tensor([text]))[0][0, -1].argmax()))
    assert list(generate(model, prompt, CONTEXT - len(prompt), temperature=0)) == text[3:]


def test_generation_goes_on_past_the_context():
    model = make("moe")
    tokens = list(generate(model, list(range(CONTEXT + 5)), 3 * CONTEXT, generator=torch.Generator()))
    assert len(tokens) == 3 * CONTEXT
    assert set(tokens) <= set(range(V))
    longest = []
    for layer in (block.attention for block in model.blocks):
        layer.register_forward_hook(lambda _, inputs, __: longest.append(inputs[1].length))
    list(generate(model, [1], 2 * CONTEXT, generator=torch.Generator()))
    assert max(longest) == CONTEXT


def test_generation_leaves_the_model_as_it_was():
    model = make("everything").train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    for _ in generate(model, [1, 2], 2, generator=torch.Generator()):
        assert [module.training for module in model.modules()] == modes
        assert torch.is_grad_enabled()


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="the prompt is empty"):
        next(generate(make(), [], 1))
