import torch

from moe_course.grading.judge.catalogue import caught_by

ROUNDS, TOLERANCE = 100, 1e-4


def _others(x_BSD, row):
    """x with fresh sequences, except for `row`."""
    other_BSD = torch.randn_like(x_BSD)
    other_BSD[row] = x_BSD[row]
    return other_BSD


def _only(x_BSD, rows):
    """x with fresh sequences in `rows`."""
    other_BSD = x_BSD.clone()
    for row in rows:
        other_BSD[row] = torch.randn_like(x_BSD[row])
    return other_BSD


def _probe(layer, x_BSD, draw, watched, rounds=ROUNDS, tolerance=TOLERANCE):
    """Whether the outputs that `watched` picks change for batches from `draw`."""
    before = watched(layer(x_BSD))
    return any(bool(((watched(layer(draw())) - before).abs() > tolerance).any()) for _ in range(rounds))


@caught_by("finds")
def every_sequence_compared(layer, x_BSD, row):
    """The others may well change when they are changed. Which sequence may not?"""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y)


@caught_by("finds")
def everything_changed(layer, x_BSD, row):
    """You change `row` as well. Whose effect do you see then?"""
    return _probe(layer, x_BSD, lambda: torch.randn_like(x_BSD), lambda y: y[row])


@caught_by("finds")
def row_changed_others_kept(layer, x_BSD, row):
    """Who is to change here, `row` or the others?"""
    return _probe(layer, x_BSD, lambda: _only(x_BSD, [row]), lambda y: y[row])


@caught_by("finds")
def row_changed_others_compared(layer, x_BSD, row):
    """You ask whether `row` reaches the others. What was the question?"""
    others_B = torch.arange(len(x_BSD)) != row
    return _probe(layer, x_BSD, lambda: _only(x_BSD, [row]), lambda y: y[others_B])


@caught_by("finds")
def true_for_independent(layer, x_BSD, row):
    """Which question does the name of this function ask, and what does True answer?"""
    return not _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row])


@caught_by("other_inputs", form=True)
def a_tensor_returned(layer, x_BSD, row):
    """Which type is promised, and which does `any()` of a tensor have?"""
    return torch.tensor(_probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row]))


@caught_by("finds")
def sequence_run_alone(layer, x_BSD, row):
    """You take the others away. What else has changed for a layer that counts its tokens?"""
    return bool((layer(x_BSD[row : row + 1])[0] - layer(x_BSD)[row]).abs().max() > TOLERANCE)


@caught_by("finds")
def batch_reordered(layer, x_BSD, row):
    """The sequence stands at another place of the batch now. Are the others all that changed?"""
    moved_SD = layer(x_BSD.roll(1, 0))[(row + 1) % len(x_BSD)]
    return bool((moved_SD - layer(x_BSD)[row]).abs().max() > TOLERANCE)


@caught_by("finds")
def rows_taken_for_positions(layer, x_BSD, row):
    """Which axis of x_BSD counts the sequences?"""
    row = min(row, x_BSD.shape[1] - 1)
    return _probe(
        layer, x_BSD, lambda: _others(x_BSD.transpose(0, 1), row).transpose(0, 1), lambda y: y[:, row]
    )


@caught_by("finds")
def neighbours_of_nan(layer, x_BSD, row):
    """nan spreads through every product, also a product with 0. Is that a dependence?"""
    other_BSD = torch.full_like(x_BSD, float("nan"))
    other_BSD[row] = x_BSD[row]
    return bool(layer(other_BSD)[row].isnan().any())


@caught_by("every_hole")
def only_the_next_sequence_changed(layer, x_BSD, row):
    """A leak from the first sequence: would you see it?"""
    rows = range(row + 1, min(row + 2, len(x_BSD)))
    return _probe(layer, x_BSD, lambda: _only(x_BSD, rows), lambda y: y[row])


@caught_by("every_hole")
def only_the_first_sequence_changed(layer, x_BSD, row):
    """A leak from the last sequence: would you see it?"""
    rows = [0] if row else []
    return _probe(layer, x_BSD, lambda: _only(x_BSD, rows), lambda y: y[row])


@caught_by("every_hole")
def only_later_sequences_changed(layer, x_BSD, row):
    """Can an earlier sequence of the batch take a place from this one?"""
    return _probe(layer, x_BSD, lambda: _only(x_BSD, range(row + 1, len(x_BSD))), lambda y: y[row])


@caught_by("every_hole")
def only_earlier_sequences_changed(layer, x_BSD, row):
    """Can a later sequence of the batch take a place from this one?"""
    return _probe(layer, x_BSD, lambda: _only(x_BSD, range(row)), lambda y: y[row])


@caught_by("every_hole")
def only_the_first_position_compared(layer, x_BSD, row):
    """How many positions has the sequence, and at how many do you look?"""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row, 0])


@caught_by("every_hole")
def only_the_last_position_compared(layer, x_BSD, row):
    """You look at the last position only. Can another sequence change an earlier one?"""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row, -1])


@caught_by("rounding")
def compared_exactly(layer, x_BSD, row):
    """Must two sums that round differently be a leak?"""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row], tolerance=0)


@caught_by("rounding")
def tolerance_without_a_floor(layer, x_BSD, row):
    """allclose allows 1e-5 of each value. How much is that for a value near 0?"""
    before = layer(x_BSD)[row]
    return not all(torch.allclose(before, layer(_others(x_BSD, row))[row]) for _ in range(ROUNDS))


@caught_by("small")
def leaks_taken_for_rounding(layer, x_BSD, row):
    """How large is rounding in float32, and how large is the difference that you allow?"""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row], tolerance=0.1)


@caught_by("small")
def leaks_taken_for_rounding__three_hundredths(layer, x_BSD, row):
    """How large is rounding in float32, and how large is the difference that you allow?"""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row], tolerance=0.03)


@caught_by("rare")
def one_batch_tried(layer, x_BSD, row):
    """How many different batches do you try? A seed that is set inside the loop draws the same one every time."""
    return _probe(layer, x_BSD, lambda: _others(x_BSD, row), lambda y: y[row], rounds=1)


@caught_by("rare")
def one_batch_tried__drawn_again_and_again(layer, x_BSD, row):
    """How many different batches do you try? A seed that is set inside the loop draws the same one every time."""

    def draw():
        torch.manual_seed(7)
        return _others(x_BSD, row)

    return _probe(layer, x_BSD, draw, lambda y: y[row])


@caught_by("rare")
def neighbours_of_zeros(layer, x_BSD, row):
    """Zeros are one batch. How many must you try to find a leak that shows in one batch of five?"""
    return _probe(
        layer, x_BSD, lambda: _others(x_BSD, row) * 0 + _kept(x_BSD, row), lambda y: y[row], rounds=1
    )


@caught_by("rare")
def gradient_asked(layer, x_BSD, row):
    """A token gets a place or it does not. What is the gradient of that step?"""
    x_BSD = x_BSD.detach().clone().requires_grad_()
    y_SD = layer(x_BSD)[row]
    (dx_BSD,) = torch.autograd.grad((y_SD * torch.randn_like(y_SD)).sum(), x_BSD)
    others_B = torch.arange(len(x_BSD)) != row
    return bool((dx_BSD[others_B].abs() > TOLERANCE).any())


@caught_by("other_inputs", form=True)
def written_into_x(layer, x_BSD, row):
    """What does the caller's batch look like after your probe?"""
    before, found = layer(x_BSD).clone()[row], False
    for _ in range(ROUNDS):
        x_BSD.copy_(_others(x_BSD, row))
        found = found or bool(((layer(x_BSD)[row] - before).abs() > TOLERANCE).any())
    return found


def _kept(x_BSD, row):
    """x with zeros everywhere but in `row`."""
    kept_BSD = torch.zeros_like(x_BSD)
    kept_BSD[row] = x_BSD[row]
    return kept_BSD
