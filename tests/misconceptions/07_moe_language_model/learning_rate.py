import math

import torch

from moe_course.grading.judge.catalogue import caught_by


def _cosine(step, peak, warmup, total, floor):
    angle = math.pi * min(step - warmup, total - 1 - warmup) / (total - 1 - warmup)
    return floor + (1 + math.cos(angle)) / 2 * (peak - floor)


@caught_by("warmup")
def starts_at_zero(step, peak, warmup, total, floor):
    """The first update has step 0. What does it change with a learning rate of 0?"""
    return peak * step / warmup if step < warmup else _cosine(step, peak, warmup, total, floor)


@caught_by("warmup")
def starts_at_the_floor(step, peak, warmup, total, floor):
    """The floor is where the cosine ends. Where does the warm-up begin?"""
    if step < warmup:
        return floor + (peak - floor) * (step + 1) / warmup
    return _cosine(step, peak, warmup, total, floor)


@caught_by("warmup")
def no_warmup_at_all(step, peak, warmup, total, floor):
    """Adam's moments are empty at first. How large is your first step?"""
    return peak if step < warmup else _cosine(step, peak, warmup, total, floor)


@caught_by("warmup")
def cosine_from_the_start(step, peak, warmup, total, floor):
    """A factor of the warm-up on top of the cosine: is the line still straight?"""
    done = min(step / (total - 1), 1.0)
    rate = floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate


@caught_by("warmup")
def warmup_one_step_longer(step, peak, warmup, total, floor):
    """After `warmup` steps the peak is reached. How many steps does yours take?"""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return _cosine(step, peak, warmup, total, floor)


@caught_by("peak")
def cosine_one_step_early(step, peak, warmup, total, floor):
    """How far has the cosine turned at step warmup?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step + 1 - warmup) / (total - warmup), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


@caught_by("peak")
def peak_cut_off(step, peak, warmup, total, floor):
    """`step < warmup − 1`: which step has the peak now?"""
    if step < warmup - 1:
        return peak * (step + 1) / warmup
    done = min((step - warmup + 2) / (total - warmup + 1), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


@caught_by("cosine")
def straight_line_down(step, peak, warmup, total, floor):
    """A straight line has the right ends. Is it slow at first and at last?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / (total - 1 - warmup), 1.0)
    return peak + (floor - peak) * done


@caught_by("cosine")
def quarter_of_a_turn(step, peak, warmup, total, floor):
    """From cos(0) to cos(π/2), or to cos(π)?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / (total - 1 - warmup), 1.0)
    return floor + (peak - floor) * math.cos(math.pi / 2 * done)


@caught_by("cosine")
def angle_in_degrees(step, peak, warmup, total, floor):
    """math.cos(180): is that −1?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / (total - 1 - warmup), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(180 * done))


@caught_by("cosine")
def constant_after_the_warmup(step, peak, warmup, total, floor):
    """Does the learning rate ever come down before the end?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if step < total - 1 else floor


@caught_by("cosine")
def floor_added_on_top(step, peak, warmup, total, floor):
    """peak + floor: what is the largest learning rate you may return?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / (total - 1 - warmup), 1.0)
    return floor + peak * 0.5 * (1 + math.cos(math.pi * done))


@caught_by("cosine")
def floor_as_a_share(step, peak, warmup, total, floor):
    """Is the floor a learning rate, or a part of the peak?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / (total - 1 - warmup), 1.0)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


@caught_by("cosine")
def cut_off_at_the_floor(step, peak, warmup, total, floor):
    """Down to 0 and cut off at the floor, or stretched so that it ends there?"""
    return (
        max(floor, _cosine(step, peak, warmup, total, 0.0)) if step >= warmup else peak * (step + 1) / warmup
    )


@caught_by("cosine")
def ends_at_zero(step, peak, warmup, total, floor):
    """What is the floor for?"""
    return peak * (step + 1) / warmup if step < warmup else _cosine(step, peak, warmup, total, 0.0)


@caught_by("floor")
def floor_one_step_late(step, peak, warmup, total, floor):
    """Steps 0 to total − 1: which one is the last update that is made?"""
    return peak * (step + 1) / warmup if step < warmup else _cosine(step, peak, warmup, total + 1, floor)


@caught_by("floor")
def up_again_after_the_end(step, peak, warmup, total, floor):
    """A cosine goes on. What is its value after half a turn?"""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (total - 1 - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


@caught_by("floor")
def nothing_after_the_end(step, peak, warmup, total, floor):
    """Someone trains on for a hundred steps. With which learning rate?"""
    if step >= total:
        return 0.0
    return peak * (step + 1) / warmup if step < warmup else _cosine(step, peak, warmup, total, floor)


@caught_by("no_warmup")
def divides_by_the_warmup(step, peak, warmup, total, floor):
    """peak / warmup is computed before you ask whether there is a warm-up. What is 1 / 0?"""
    slope = peak / warmup
    return slope * (step + 1) if step < warmup else _cosine(step, peak, warmup, total, floor)


@caught_by("no_warmup")
def at_least_one_step_of_warmup(step, peak, warmup, total, floor):
    """max(warmup, 1) avoids the division by zero. Where does the cosine start now?"""
    warmup = max(warmup, 1)
    return peak * (step + 1) / warmup if step < warmup else _cosine(step, peak, warmup, total, floor)


@caught_by("python_float", form=True)
def a_tensor(step, peak, warmup, total, floor):
    """An optimizer takes a Python float. What do you return?"""
    if step < warmup:
        return torch.tensor(peak * (step + 1) / warmup)
    return torch.tensor(_cosine(step, peak, warmup, total, floor))
