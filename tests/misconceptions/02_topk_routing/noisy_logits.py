import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


@caught_by("plain")
def noise_at_evaluation_too(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Run the same token twice: is it routed the same way each time you evaluate?"""
    return x_TD @ w_gate_DE + noise_TE * F.softplus(x_TD @ w_noise_DE)


@caught_by("plain")
def noise_at_evaluation_only(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """When is exploring of any use: while the router learns, or afterwards?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE if training else logits_TE + noise_TE * F.softplus(x_TD @ w_noise_DE)


@caught_by("plain")
def matrices_swapped(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Which of the two matrices gives the logits, and which the scale of the noise?"""
    logits_TE = x_TD @ w_noise_DE
    return logits_TE + noise_TE * F.softplus(x_TD @ w_gate_DE) if training else logits_TE


@caught_by("plain")
def scale_left_over_at_evaluation(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """The noise is gone. What is its scale still doing in the logits?"""
    scale_TE = F.softplus(x_TD @ w_noise_DE)
    return x_TD @ w_gate_DE + (noise_TE * scale_TE if training else scale_TE)


@caught_by("noise_added")
def never_any_noise(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Two of the arguments are not in use. What are they for in training?"""
    return x_TD @ w_gate_DE


@caught_by("noise_added")
def noise_of_fixed_scale(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """All experts get noise of the same scale. Who decides how much each of them should get?"""
    return x_TD @ w_gate_DE + noise_TE if training else x_TD @ w_gate_DE


@caught_by("noise_added")
def no_softplus(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """A product can be negative or 0. What keeps the scale of the noise positive?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * (x_TD @ w_noise_DE) if training else logits_TE


@caught_by("noise_added")
def exp_instead_of_softplus(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """exp is positive too. How fast does it grow, compared with log(1 + exp)?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * torch.exp(x_TD @ w_noise_DE) if training else logits_TE


@caught_by("noise_added")
def relu_instead_of_softplus(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Where relu gives 0, can w_noise ever learn to bring the noise back?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * F.relu(x_TD @ w_noise_DE) if training else logits_TE


@caught_by("noise_added")
def sigmoid_instead_of_softplus(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """A sigmoid never exceeds 1. May the noise?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * torch.sigmoid(x_TD @ w_noise_DE) if training else logits_TE


@caught_by("noise_added")
def softplus_of_the_noise(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """With ε inside the softplus, can the noise still lower a logit?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + F.softplus(noise_TE * (x_TD @ w_noise_DE)) if training else logits_TE


@caught_by("noise_added")
def softplus_as_variance(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Does softplus give the noise's variance here, or its standard deviation?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * F.softplus(x_TD @ w_noise_DE).sqrt() if training else logits_TE


@caught_by("noise_added")
def noise_multiplied(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Multiplied noise leaves a logit of 0 alone. Is it multiplied or added?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE * (1 + noise_TE * F.softplus(x_TD @ w_noise_DE)) if training else logits_TE


@caught_by("noise_added")
def noise_subtracted(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """For random noise the sign hardly matters. Does it for a caller who hands you the noise?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE - noise_TE * F.softplus(x_TD @ w_noise_DE) if training else logits_TE


@caught_by("noise_added")
def noise_drawn_again(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """The noise is an argument. Why draw another one, which nobody can repeat?"""
    logits_TE = x_TD @ w_gate_DE
    fresh_TE = torch.randn_like(noise_TE)
    return logits_TE + fresh_TE * F.softplus(x_TD @ w_noise_DE) if training else logits_TE


@caught_by("gradients")
def scale_detached(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """The noise itself cannot be learned. But its scale?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * F.softplus(x_TD @ w_noise_DE).detach() if training else logits_TE


@caught_by("gradients")
def tokens_detached_in_the_scale(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """x takes two ways into the logits. Does its gradient come back along both?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * F.softplus(x_TD.detach() @ w_noise_DE) if training else logits_TE


@caught_by("gradients")
def no_gradient_at_evaluation(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Who decides whether gradients are kept: this function, or whoever calls it under torch.no_grad()?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * F.softplus(x_TD @ w_noise_DE) if training else logits_TE.detach()


@caught_by("stable")
def softplus_by_hand(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """log(1 + exp(z)) is right on paper. What does float32 make of exp(120)?"""
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * torch.log(1 + torch.exp(x_TD @ w_noise_DE)) if training else logits_TE


@caught_by("other_inputs", form=True)
def noise_scaled_in_place(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """Whose tensor is noise_TE, and what does the caller find in it afterwards?"""
    logits_TE = x_TD @ w_gate_DE
    if training:
        noise_TE *= F.softplus(x_TD @ w_noise_DE)
        logits_TE = logits_TE + noise_TE
    return logits_TE


@caught_by("other_inputs", form=True)
def float32_logits_of_everything(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    """float32 is more than bfloat16 has. Is it also more than float64 has?"""
    x_TD, w_gate_DE, w_noise_DE, noise_TE = (a.float() for a in (x_TD, w_gate_DE, w_noise_DE, noise_TE))
    logits_TE = x_TD @ w_gate_DE
    return logits_TE + noise_TE * F.softplus(x_TD @ w_noise_DE) if training else logits_TE
