from moe_course.grading.judge.catalogue import caught_by


@caught_by("share")
def top_k_left_out(num_tokens, top_k, num_experts):
    """Each token goes to top_k experts. How often is it counted then?"""
    return num_tokens / num_experts


@caught_by("share")
def upside_down(num_tokens, top_k, num_experts):
    """Do more experts mean more or less work for each of them?"""
    return num_experts / (num_tokens * top_k)


@caught_by("share")
def divided_by_k(num_tokens, top_k, num_experts):
    """If each token chose twice as many experts, would an expert have more work or less?"""
    return num_tokens / (num_experts * top_k)


@caught_by("float")
def rounded_down(num_tokens, top_k, num_experts):
    """What does // do to 5 tokens over 2 experts?"""
    return num_tokens * top_k // num_experts
