import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("chooses")
def tokens_chosen_by_experts(logits_TE):
    """Each expert picks a token here. Who should pick whom, and along which axis?"""
    return logits_TE.softmax(dim=-1).max(dim=0)


@caught_by("chooses")
def one_hot_instead_of_a_number(logits_TE):
    """A row of zeros and a one says which expert it is. What is shorter, and can be used as an index?"""
    weight_T, idx_T = logits_TE.softmax(dim=-1).max(dim=-1)
    return weight_T, torch.nn.functional.one_hot(idx_T, logits_TE.shape[1])


@caught_by("chooses")
def slot_axis_kept(logits_TE):
    """There is one expert a token. How many axes does the result need?"""
    weights_TK, idx_TK = logits_TE.softmax(dim=-1).topk(1, dim=-1)
    return weights_TK, idx_TK


@caught_by("weight")
def logit_as_weight(logits_TE):
    """The largest logit can be 5, or −3. Is that a probability?"""
    return logits_TE.max(dim=-1)


@caught_by("weight")
def sigmoid_as_weight(logits_TE):
    """A sigmoid looks at one logit alone. Which others does the probability of an expert depend on?"""
    weight_T, idx_T = logits_TE.max(dim=-1)
    return weight_T.sigmoid(), idx_T


@caught_by("weight")
def log_probability_as_weight(logits_TE):
    """Can a weight be negative?"""
    return logits_TE.log_softmax(dim=-1).max(dim=-1)


@caught_by("weight")
def softmax_over_tokens(logits_TE):
    """Do your probabilities add up to 1 for a token, or for an expert?"""
    idx_T = logits_TE.argmax(dim=-1)
    return logits_TE.softmax(dim=0).gather(1, idx_T[:, None])[:, 0], idx_T


@caught_by("weight")
def all_probabilities_returned(logits_TE):
    """Which of these probabilities is the weight of the chosen expert?"""
    probs_TE = logits_TE.softmax(dim=-1)
    return probs_TE, probs_TE.argmax(dim=-1)


@caught_by("weight")
def one_with_a_straight_through_gradient(logits_TE):
    """The gradient is there. But how much of the expert's output reaches the token when the router doubts?"""
    weight_T, idx_T = logits_TE.softmax(dim=-1).max(dim=-1)
    return 1 + weight_T - weight_T.detach(), idx_T


@caught_by("gradients")
def renormalised(logits_TE):
    """p/p is 1, whatever the logits are. What is the gradient of a constant?"""
    weight_T, idx_T = logits_TE.softmax(dim=-1).max(dim=-1)
    return weight_T / weight_T, idx_T


@caught_by("gradients")
def weight_of_one(logits_TE):
    """A single expert gets everything. How does the router then learn that it chose badly?"""
    return torch.ones_like(logits_TE[:, 0]), logits_TE.argmax(dim=-1)


@caught_by("gradients")
def weight_detached(logits_TE):
    """The number is right. But can a loss reach the router through it?"""
    weight_T, idx_T = logits_TE.detach().softmax(dim=-1).max(dim=-1)
    return weight_T, idx_T


@caught_by("gradients")
def normaliser_held_constant(logits_TE):
    """The sum under the fraction depends on every logit. Does your gradient know?"""
    top_T, idx_T = logits_TE.max(dim=-1)
    weight_T = torch.exp(top_T.float() - logits_TE.detach().float().logsumexp(dim=-1))
    return weight_T.to(logits_TE.dtype), idx_T


@caught_by("stable")
def exp_by_hand(logits_TE):
    """exp(89) is more than float32 can hold. What may you subtract first without changing the result?"""
    exp_TE = logits_TE.float().exp()
    weight_T, idx_T = (exp_TE / exp_TE.sum(dim=-1, keepdim=True)).max(dim=-1)
    return weight_T.to(logits_TE.dtype), idx_T


@caught_by("float32_softmax", form=True)
def softmax_by_hand_in_bfloat16(logits_TE):
    """exp, sum and division each round to eight bits here. How often would they have to, if you went to float32?"""
    exp_TE = (logits_TE - logits_TE.amax(dim=-1, keepdim=True)).exp()
    return (exp_TE / exp_TE.sum(dim=-1, keepdim=True)).max(dim=-1)


@caught_by("float32_softmax", form=True)
def exp_of_a_bfloat16_log_softmax(logits_TE):
    """What does a rounding error in a logarithm become after exp?"""
    weight_T, idx_T = logits_TE.log_softmax(dim=-1).max(dim=-1)
    return weight_T.exp(), idx_T


@caught_by("other_inputs", form=True)
def float32_weight(logits_TE):
    """The softmax may run in float32. In which dtype does the weight come back?"""
    return logits_TE.float().softmax(dim=-1).max(dim=-1)


@caught_by("other_inputs", form=True)
def largest_logit_subtracted_in_place(logits_TE):
    """`-=` writes into the caller's tensor. Who else may need those logits, the balancing loss perhaps?"""
    logits_TE -= logits_TE.amax(dim=-1, keepdim=True)
    return logits_TE.softmax(dim=-1).max(dim=-1)
