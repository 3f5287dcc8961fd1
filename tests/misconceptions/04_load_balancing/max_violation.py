from moe_course.grading.judge.catalogue import caught_by


@caught_by("values")
def without_minus_one(load_E):
    """What does this give for an even load, where nothing is violated?"""
    return load_E.max() / load_E.mean()


@caught_by("values")
def difference_instead_of_ratio(load_E):
    """Is it how many more, or how many times more?"""
    return load_E.max() - load_E.mean()


@caught_by("values")
def largest_over_smallest(load_E):
    """What is the busiest expert compared with: the idlest one, or the mean?"""
    return load_E.max() / load_E.min() - 1


@caught_by("values")
def upside_down(load_E):
    """Which of the two numbers belongs above the line?"""
    return load_E.mean() / load_E.max() - 1


@caught_by("values")
def compared_with_the_median(load_E):
    """The mean and the middle one: which of them is the fair share?"""
    return load_E.max() / load_E.median() - 1


@caught_by("values")
def compared_with_the_median__between_the_middle_two(load_E):
    """The mean and the middle one: which of them is the fair share?"""
    return load_E.max() / load_E.quantile(0.5) - 1


@caught_by("values")
def sum_instead_of_mean(load_E):
    """The sum of the loads is 1. What is their mean?"""
    return load_E.max() / load_E.sum() - 1


@caught_by("values")
def the_least_busy(load_E):
    """Which expert do all the others wait for: the one with most work, or with least?"""
    return 1 - load_E.min() / load_E.mean()


@caught_by("values")
def the_least_busy__below_zero(load_E):
    """Which expert do all the others wait for: the one with most work, or with least?"""
    return load_E.min() / load_E.mean() - 1


@caught_by("values")
def violation_of_every_expert(load_E):
    """One number for the layer, or one for each expert?"""
    return load_E / load_E.mean() - 1


@caught_by("other_inputs", form=True)
def a_python_number(load_E):
    """What would .item() make a GPU and its host do?"""
    return float(load_E.max() / load_E.mean() - 1)


@caught_by("values")
def one_axis_too_many(load_E):
    """How many axes has one number?"""
    return load_E.max(dim=0, keepdim=True).values / load_E.mean() - 1


@caught_by("values")
def divided_by_the_worst_case(load_E):
    """1 is the worst here. What should the worst be, for E experts?"""
    return (load_E.max() / load_E.mean() - 1) / max(1, len(load_E) - 1)


@caught_by("only_the_busiest")
def deviation_in_either_direction(load_E):
    """Two of three experts share the work evenly, the third is idle. Who is violated here, and by how much?"""
    return (load_E / load_E.mean() - 1).abs().max()


@caught_by("only_the_busiest")
def mean_over_experts_in_use(load_E):
    """Does an idle expert belong in the mean? Who else would have had its share?"""
    return load_E.max() / load_E[load_E > 0].mean() - 1


@caught_by("extremes")
def spread_instead_of_excess(load_E):
    """The distance from the idlest to the busiest: what does it give when one expert takes all?"""
    return (load_E.max() - load_E.min()) / load_E.mean()


@caught_by("other_inputs", form=True)
def divided_in_place(load_E):
    """Whose tensor do you divide, and what does the caller find in it afterwards?"""
    load_E /= load_E.mean()
    return load_E.max() - 1
