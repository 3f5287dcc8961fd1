import torch

from moe_course.grading.judge.catalogue import caught_by

ROUNDS, TOLERANCE = 100, 1e-4


def _other(x_BSD, start):
    """x with fresh tokens from `start` on."""
    other_BSD = x_BSD.clone()
    other_BSD[:, start:] = torch.randn_like(other_BSD[:, start:])
    return other_BSD


def _probe(layer, x_BSD, start, watched, rounds=ROUNDS, tolerance=TOLERANCE):
    """Whether the outputs that `watched` picks change when tokens from `start` on do."""
    before = watched(layer(x_BSD))
    return any(
        bool(((watched(layer(_other(x_BSD, start))) - before).abs() > tolerance).any()) for _ in range(rounds)
    )


@caught_by("finds")
def every_output_compared(layer, x_BSD, position):
    """Later outputs may well change when later tokens do. Which outputs may not?"""
    return _probe(layer, x_BSD, position + 1, lambda y: y)


@caught_by("finds")
def everything_changed(layer, x_BSD, position):
    """You change the past as well. Whose effect do you see then?"""
    return _probe(layer, x_BSD, 0, lambda y: y[:, : position + 1])


@caught_by("finds")
def the_token_itself_changed(layer, x_BSD, position):
    """A token may see itself. Which is the first that it may not see?"""
    return _probe(layer, x_BSD, position, lambda y: y[:, : position + 1])


@caught_by("finds")
def true_for_causal(layer, x_BSD, position):
    """Which question does the name of this function ask, and what does True answer?"""
    return not _probe(layer, x_BSD, position + 1, lambda y: y[:, : position + 1])


@caught_by("other_inputs", form=True)
def a_tensor_returned(layer, x_BSD, position):
    """Which type is promised, and which does `any()` of a tensor have?"""
    return torch.tensor(_probe(layer, x_BSD, position + 1, lambda y: y[:, : position + 1]))


@caught_by("finds")
def past_run_alone(layer, x_BSD, position):
    """You cut the future off. What else has changed for a layer that counts its tokens?"""
    keep = position + 1
    return bool((layer(x_BSD[:, :keep]) - layer(x_BSD)[:, :keep]).abs().max() > TOLERANCE)


@caught_by("finds")
def future_of_nan(layer, x_BSD, position):
    """nan spreads through every product, also a product with 0. Is that a dependence?"""
    other_BSD = x_BSD.clone()
    other_BSD[:, position + 1 :] = float("nan")
    return bool(layer(other_BSD)[:, : position + 1].isnan().any())


@caught_by("finds")
def only_nudged(layer, x_BSD, position):
    """How far do you move the later tokens, and how much of that can reach the output?"""
    before = layer(x_BSD)[:, : position + 1]
    nudge_BSD = 1e-6 * torch.randn_like(x_BSD)
    nudge_BSD[:, : position + 1] = 0
    return bool(((layer(x_BSD + nudge_BSD)[:, : position + 1] - before).abs() > TOLERANCE).any())


@caught_by("every_hole")
def position_itself_not_compared(layer, x_BSD, position):
    """Where does the slice [:position] end?"""
    return _probe(layer, x_BSD, position + 1, lambda y: y[:, :position])


@caught_by("every_hole")
def only_position_compared(layer, x_BSD, position):
    """At or before: which outputs do you leave out?"""
    return _probe(layer, x_BSD, position + 1, lambda y: y[:, position])


@caught_by("every_hole")
def next_token_left_alone(layer, x_BSD, position):
    """Which is the first later token, and do you change it?"""
    return _probe(layer, x_BSD, position + 2, lambda y: y[:, : position + 1])


@caught_by("every_hole")
def only_the_last_token_changed(layer, x_BSD, position):
    """A leak from the token right behind: would you see it?"""
    start = max(position + 1, x_BSD.shape[1] - 1)
    return _probe(layer, x_BSD, start, lambda y: y[:, : position + 1])


@caught_by("every_hole")
def only_the_next_token_changed(layer, x_BSD, position):
    """A leak from the very last token: would you see it?"""
    before = layer(x_BSD)[:, : position + 1]
    for _ in range(ROUNDS):
        other_BSD = _other(x_BSD, position + 1)
        other_BSD[:, position + 2 :] = x_BSD[:, position + 2 :]
        if ((layer(other_BSD)[:, : position + 1] - before).abs() > TOLERANCE).any():
            return True
    return False


@caught_by("every_hole")
def only_the_first_sequence_compared(layer, x_BSD, position):
    """How many sequences are in the batch, and at how many do you look?"""
    return _probe(layer, x_BSD, position + 1, lambda y: y[0, : position + 1])


@caught_by("every_hole")
def each_sequence_compared_with_itself(layer, x_BSD, position):
    """You change one sequence, and look at the same one. Who else may have seen the change?"""
    keep = position + 1
    before = layer(x_BSD)[:, :keep]
    for _ in range(ROUNDS):
        for row in range(len(x_BSD)):
            other_BSD = x_BSD.clone()
            other_BSD[row, keep:] = torch.randn_like(other_BSD[row, keep:])
            if ((layer(other_BSD)[row, :keep] - before[row]).abs() > TOLERANCE).any():
                return True
    return False


@caught_by("rounding")
def compared_exactly(layer, x_BSD, position):
    """Must two sums that round differently be a leak?"""
    return _probe(layer, x_BSD, position + 1, lambda y: y[:, : position + 1], tolerance=0)


@caught_by("rounding")
def tolerance_without_a_floor(layer, x_BSD, position):
    """allclose allows 1e-5 of each value. How much is that for a value near 0?"""
    before = layer(x_BSD)[:, : position + 1]
    outs = [layer(_other(x_BSD, position + 1))[:, : position + 1] for _ in range(ROUNDS)]
    return not all(torch.allclose(before, out) for out in outs)


@caught_by("small")
def leaks_taken_for_rounding(layer, x_BSD, position):
    """How large is rounding in float32, and how large is the difference that you allow?"""
    return _probe(layer, x_BSD, position + 1, lambda y: y[:, : position + 1], tolerance=0.1)


@caught_by("small")
def leaks_taken_for_rounding__three_hundredths(layer, x_BSD, position):
    """How large is rounding in float32, and how large is the difference that you allow?"""
    before = layer(x_BSD)[:, : position + 1]
    outs = [layer(_other(x_BSD, position + 1))[:, : position + 1] for _ in range(ROUNDS)]
    return not all(torch.allclose(before, out, rtol=0, atol=0.03) for out in outs)


@caught_by("rare")
def one_future_tried(layer, x_BSD, position):
    """How many different futures do you try? A seed that is set inside the loop draws the same one every time."""
    return _probe(layer, x_BSD, position + 1, lambda y: y[:, : position + 1], rounds=1)


@caught_by("rare")
def one_future_tried__drawn_again_and_again(layer, x_BSD, position):
    """How many different futures do you try? A seed that is set inside the loop draws the same one every time."""
    before = layer(x_BSD)[:, : position + 1]
    for _ in range(ROUNDS):
        torch.manual_seed(7)
        if ((layer(_other(x_BSD, position + 1))[:, : position + 1] - before).abs() > TOLERANCE).any():
            return True
    return False


@caught_by("rare")
def future_of_zeros(layer, x_BSD, position):
    """Zeros are one future. How many must you try to find a leak that shows in one future of five?"""
    before = layer(x_BSD)[:, : position + 1]
    other_BSD = x_BSD.clone()
    other_BSD[:, position + 1 :] = 0
    return bool(((layer(other_BSD)[:, : position + 1] - before).abs() > TOLERANCE).any())


@caught_by("rare")
def gradient_asked(layer, x_BSD, position):
    """A token gets a place or it does not. What is the gradient of that step?"""
    x_BSD = x_BSD.detach().clone().requires_grad_()
    y_BSD = layer(x_BSD)[:, : position + 1]
    (dx_BSD,) = torch.autograd.grad((y_BSD * torch.randn_like(y_BSD)).sum(), x_BSD)
    return bool((dx_BSD[:, position + 1 :].abs() > TOLERANCE).any())


@caught_by("other_inputs", form=True)
def written_into_x(layer, x_BSD, position):
    """What does the caller's batch look like after your probe?"""
    before = layer(x_BSD).clone()[:, : position + 1]
    found = False
    for _ in range(ROUNDS):
        x_BSD[:, position + 1 :] = torch.randn_like(x_BSD[:, position + 1 :])
        found = found or bool(((layer(x_BSD)[:, : position + 1] - before).abs() > TOLERANCE).any())
    return found
