from moe_course.grading.judge.catalogue import caught_by


@caught_by("leaves")
def everything_leaves(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """One of the R shares has the rank itself as its receiver. Does that one leave?"""
    return float(tokens_per_rank * top_k * d_model * bytes_per_value)


@caught_by("leaves")
def one_copy_of_a_token(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """A token has K experts. How often is it sent?"""
    return tokens_per_rank * d_model * bytes_per_value * (num_ranks - 1) / num_ranks


@caught_by("leaves")
def there_and_back(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """Is one direction asked for, or both?"""
    return 2 * tokens_per_rank * top_k * d_model * bytes_per_value * (num_ranks - 1) / num_ranks


@caught_by("leaves")
def one_receiver(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """That goes to one of the other ranks. How many others are there?"""
    share = tokens_per_rank * top_k * d_model * bytes_per_value / num_ranks
    return share if num_ranks > 1 else 0.0


@caught_by("leaves")
def all_ranks_together(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """Is that what one rank sends, or what all of them send?"""
    return float(tokens_per_rank * top_k * d_model * bytes_per_value * (num_ranks - 1))


@caught_by("alone")
def one_rank_pays_as_well(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """With a single rank, to whom do the bytes go?"""
    others = max(1, num_ranks - 1)
    return tokens_per_rank * top_k * d_model * bytes_per_value * others / max(2, num_ranks)


@caught_by("float", form=True)
def whole_copies(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """On average 7.5 copies may leave. Which division makes 7 of that?"""
    return float(tokens_per_rank * top_k * (num_ranks - 1) // num_ranks * d_model * bytes_per_value)


@caught_by("float", form=True)
def whole_bytes(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    """A mean may have half a byte. What does int() make of it?"""
    return int(tokens_per_rank * top_k * d_model * bytes_per_value * (num_ranks - 1) / num_ranks)
