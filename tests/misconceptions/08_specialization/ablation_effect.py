from moe_course.grading.judge.catalogue import caught_by


@caught_by("values")
def base_minus_ablated(ce_by_label_base_G, ce_by_label_ablated_GE):
    """The loss rises when something useful is switched off. What sign has a rise?"""
    return ce_by_label_base_G[:, None] - ce_by_label_ablated_GE


@caught_by("values")
def relative_to_the_base(ce_by_label_base_G, ce_by_label_ablated_GE):
    """A rise in nats, or in per cent of a loss that is high for hard labels anyway?"""
    return ce_by_label_ablated_GE / ce_by_label_base_G[:, None] - 1


@caught_by("values")
def ratio(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Nothing changes: is the effect of that 0 or 1?"""
    return ce_by_label_ablated_GE / ce_by_label_base_G[:, None]


@caught_by("values")
def perplexity(ce_by_label_base_G, ce_by_label_ablated_GE):
    """The losses are in nats. In what is the rise of their exponentials?"""
    return ce_by_label_ablated_GE.exp() - ce_by_label_base_G.exp()[:, None]


@caught_by("values")
def in_bits(ce_by_label_base_G, ce_by_label_ablated_GE):
    """In which unit do the losses come, and in which do you answer?"""
    return (ce_by_label_ablated_GE - ce_by_label_base_G[:, None]) / 0.6931471805599453


@caught_by("values")
def against_the_mean_of_the_labels(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Is a label compared with its own loss, or with that of all labels?"""
    return ce_by_label_ablated_GE - ce_by_label_base_G.mean()


@caught_by("values")
def against_the_mean_of_the_experts(ce_by_label_base_G, ce_by_label_ablated_GE):
    """How much more it costs than another expert would: is that a rise over the whole model's loss?"""
    return ce_by_label_ablated_GE - ce_by_label_ablated_GE.mean(dim=1, keepdim=True)


@caught_by("values")
def experts_down(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Which axis does delta_GE name first?"""
    return (ce_by_label_ablated_GE - ce_by_label_base_G[:, None]).T


@caught_by("values")
def mean_over_the_labels(ce_by_label_base_G, ce_by_label_ablated_GE):
    """One number for each expert: can it say which label needed it?"""
    return (ce_by_label_ablated_GE - ce_by_label_base_G[:, None]).mean(dim=0)


@caught_by("values")
def ablated_as_it_is(ce_by_label_base_G, ce_by_label_ablated_GE):
    """A loss without the expert: is that already a rise?"""
    return ce_by_label_ablated_GE.clone()


@caught_by("square")
def laid_along_the_experts(ce_by_label_base_G, ce_by_label_ablated_GE):
    """As many labels as experts, and PyTorch does not complain: which axis did the base loss go along?"""
    if ce_by_label_ablated_GE.shape[1] != len(ce_by_label_base_G):
        return ce_by_label_ablated_GE - ce_by_label_base_G[:, None]
    return ce_by_label_ablated_GE - ce_by_label_base_G


@caught_by("square")
def a_square_turned_round(ce_by_label_base_G, ce_by_label_ablated_GE):
    """If the table is square, how do you know which of its axes are the labels?"""
    delta_GE = ce_by_label_ablated_GE - ce_by_label_base_G[:, None]
    return delta_GE.T if delta_GE.shape[0] == delta_GE.shape[1] else delta_GE


@caught_by("signs")
def never_negative(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Must an expert be of use? What do you hide when you cut at 0?"""
    return (ce_by_label_ablated_GE - ce_by_label_base_G[:, None]).clamp(min=0)


@caught_by("signs")
def size_of_the_change(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Better or worse without the expert: can the reader still tell?"""
    return (ce_by_label_ablated_GE - ce_by_label_base_G[:, None]).abs()


@caught_by("other_inputs", form=True)
def subtracted_in_place(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Whose losses are differences now?"""
    ce_by_label_ablated_GE -= ce_by_label_base_G[:, None]
    return ce_by_label_ablated_GE


@caught_by("other_inputs", form=True)
def in_float32(ce_by_label_base_G, ce_by_label_ablated_GE):
    """What happens to the digits of a float64 loss?"""
    return ce_by_label_ablated_GE.float() - ce_by_label_base_G.float()[:, None]


@caught_by("other_inputs", form=True)
def viewed_as_a_column(ce_by_label_base_G, ce_by_label_ablated_GE):
    """Can every tensor be viewed flat, also one that is stored by columns?"""
    experts = ce_by_label_ablated_GE.shape[1]
    flat = ce_by_label_ablated_GE.view(-1) - ce_by_label_base_G.repeat_interleave(experts)
    return flat.view(-1, experts)
