import math


def starts_at_zero(step, peak, warmup, total, floor):
    if step < warmup:
        return step / warmup * peak
    progress = min(1.0, (step - warmup) / (total - 1 - warmup))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def straight_line_down(step, peak, warmup, total, floor):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return floor
    done = (step - warmup) / (total - 1 - warmup)
    return peak * (1 - done) + floor * done


def quarter_of_a_turn(step, peak, warmup, total, floor):
    if step < warmup:
        return peak / warmup * (step + 1)
    x = min((step - warmup) / (total - warmup - 1), 1)
    return floor + (peak - floor) * math.cos(x * math.pi / 2)


def ends_at_zero(step, peak, warmup, total, floor):
    if step < warmup:
        return peak * (1 + step) / warmup
    x = (step - warmup) / (total - warmup - 1)
    return 0.5 * peak * (1 + math.cos(math.pi * min(x, 1)))


def floor_one_step_late(step, peak, warmup, total, floor):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return floor
    x = (step - warmup) / (total - warmup)
    return floor + (peak - floor) * (1 + math.cos(math.pi * x)) / 2


def up_again_after_the_end(step, peak, warmup, total, floor):
    if warmup and step < warmup:
        return (step + 1) * peak / warmup
    angle = math.pi * (step - warmup) / (total - 1 - warmup)
    return floor + (peak - floor) * math.cos(angle / 2) ** 2


def floor_added_on_top(step, peak, warmup, total, floor):
    if step < warmup:
        return peak * (step + 1) / warmup
    x = min((step - warmup) / (total - warmup - 1), 1.0)
    return floor + peak * (math.cos(x * math.pi) + 1) / 2
