def all_choices_differ(num_experts, top_k, batch):
    chosen = top_k * batch
    if chosen > num_experts:
        chosen = num_experts
    return 1.0 * chosen


def choices_counted(num_experts, top_k, batch):
    total = 0.0
    for _ in range(batch):
        total += top_k
    return total


def choices_of_a_token_may_repeat(num_experts, top_k, batch):
    draws = top_k * batch
    missed = ((num_experts - 1) / num_experts) ** draws
    return num_experts - num_experts * missed


def one_choice_for_each_token(num_experts, top_k, batch):
    never = (1.0 - 1.0 / num_experts) ** batch
    return (1.0 - never) * num_experts


def share_of_the_experts(num_experts, top_k, batch):
    hit = top_k / num_experts
    return 1.0 - (1.0 - hit) ** batch


def unused_experts(num_experts, top_k, batch):
    p_miss = (num_experts - top_k) / num_experts
    return num_experts * p_miss**batch


def rounded_up(num_experts, top_k, batch):
    used = num_experts * (1 - (1 - top_k / num_experts) ** batch)
    whole = int(used)
    return float(whole if used - whole < 1e-6 else whole + 1)
