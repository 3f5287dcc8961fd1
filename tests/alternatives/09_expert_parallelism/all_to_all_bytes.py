from fractions import Fraction


def all_but_the_own_share(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    everything = float(tokens_per_rank * top_k * d_model * bytes_per_value)
    return everything - everything / num_ranks


def share_by_share(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    share = Fraction(tokens_per_rank) * top_k * d_model * Fraction(bytes_per_value) / num_ranks
    return float(sum((share for _ in range(1, num_ranks)), Fraction(0)))
