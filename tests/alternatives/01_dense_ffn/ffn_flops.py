def product_by_product(num_tokens, d_model, d_ff):
    def matmul(rows, inner, columns):
        return 2 * rows * inner * columns

    into = matmul(num_tokens, d_model, d_ff)
    return into + into + matmul(num_tokens, d_ff, d_model)


def two_for_every_weight(num_tokens, d_model, d_ff):
    weights = d_model * d_ff * 3
    return num_tokens * (weights << 1)
