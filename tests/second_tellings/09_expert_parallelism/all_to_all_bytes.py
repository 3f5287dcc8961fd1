def everything_leaves(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    copies = tokens_per_rank * top_k
    return copies * d_model * float(bytes_per_value)


def one_copy_of_a_token(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    per_token = d_model * bytes_per_value
    return tokens_per_rank * per_token * (1 - 1 / num_ranks)


def there_and_back(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    out = tokens_per_rank * top_k * d_model * bytes_per_value * (1 - 1 / num_ranks)
    back = out
    return out + back


def one_receiver(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    if num_ranks == 1:
        return 0.0
    return tokens_per_rank * top_k / num_ranks * d_model * bytes_per_value


def all_ranks_together(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    each = tokens_per_rank * top_k * d_model * bytes_per_value / num_ranks
    return each * (num_ranks - 1) * num_ranks


def whole_bytes(tokens_per_rank, top_k, d_model, bytes_per_value, num_ranks):
    return round(tokens_per_rank * top_k * d_model * bytes_per_value * (num_ranks - 1) / num_ranks)
