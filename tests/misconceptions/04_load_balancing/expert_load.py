import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("shares")
def counts_returned(idx_TK, num_experts):
    """To what do the loads of all experts add up, and to what do yours?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts).float()


@caught_by("shares")
def whole_number_division(idx_TK, num_experts):
    """Which kind of division keeps what is behind the point?"""
    return (torch.bincount(idx_TK.flatten(), minlength=num_experts) // idx_TK.numel()).float()


@caught_by("shares")
def softmax_of_the_counts(idx_TK, num_experts):
    """Twice the tokens, twice the share: does a softmax keep proportions?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts).float().softmax(dim=0)


@caught_by("shares")
def divided_by_the_largest(idx_TK, num_experts):
    """The busiest expert has load 1 here. Does it get all assignments?"""
    counts_E = torch.bincount(idx_TK.flatten(), minlength=num_experts)
    return counts_E / counts_E.max()


@caught_by("shares")
def relative_to_the_fair_share(idx_TK, num_experts):
    """1 means a fair share here. Which number is the fair share when the loads add up to 1?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts) * num_experts / idx_TK.numel()


@caught_by("shares")
def in_percent(idx_TK, num_experts):
    """A fraction, or a percentage?"""
    return 100 * torch.bincount(idx_TK.flatten(), minlength=num_experts) / idx_TK.numel()


@caught_by("shares")
def experts_numbered_from_one(idx_TK, num_experts):
    """Which number has the first expert?"""
    return torch.bincount(idx_TK.flatten() + 1, minlength=num_experts + 2)[2:] / idx_TK.numel()


@caught_by("other_inputs", form=True)
def a_list_of_numbers(idx_TK, num_experts):
    """Would the next function be able to take the mean of a Python list?"""
    return [float((idx_TK == e).float().mean()) for e in range(num_experts)]


@caught_by("other_inputs", form=True)
def half_precision(idx_TK, num_experts):
    """How many digits has a fraction in bfloat16, and how many experts does a large model have?"""
    return (torch.bincount(idx_TK.flatten(), minlength=num_experts) / idx_TK.numel()).bfloat16()


@caught_by("slots")
def divided_by_the_tokens(idx_TK, num_experts):
    """T tokens make how many assignments? What do your loads add up to for K = 2?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts) / len(idx_TK)


@caught_by("slots")
def first_choices_only(idx_TK, num_experts):
    """An expert that is everybody's second choice: has it nothing to do?"""
    return torch.bincount(idx_TK[:, 0], minlength=num_experts) / len(idx_TK)


@caught_by("slots")
def a_row_for_each_slot(idx_TK, num_experts):
    """One load for each expert, or one for each slot and expert?"""
    return torch.nn.functional.one_hot(idx_TK, num_experts).float().mean(dim=0)


@caught_by("empty_experts")
def length_from_the_data(idx_TK, num_experts):
    """How does bincount know how many experts there are when the last ones are idle?"""
    return torch.bincount(idx_TK.flatten()) / idx_TK.numel()


@caught_by("empty_experts")
def only_experts_in_use(idx_TK, num_experts):
    """Where in your result is the expert that nobody chose?"""
    _, counts = idx_TK.unique(return_counts=True)
    return counts / idx_TK.numel()


@caught_by("other_inputs", form=True)
def view_of_a_strided_tensor(idx_TK, num_experts):
    """Which of view and reshape works on a tensor whose rows do not lie one behind the other?"""
    return torch.bincount(idx_TK.view(-1), minlength=num_experts) / idx_TK.numel()


@caught_by("other_inputs", form=True)
def sorted_in_place(idx_TK, num_experts):
    """Whose tensor do you sort, and what does the caller find in it afterwards?"""
    idx_TK[:] = idx_TK.flatten().sort().values.reshape(idx_TK.shape)
    return torch.bincount(idx_TK.flatten(), minlength=num_experts) / idx_TK.numel()
