def by_search(expert, num_experts, num_ranks):
    if num_ranks <= 0 or num_experts <= 0:
        raise ValueError("sizes must be positive")
    size, rest = divmod(num_experts, num_ranks)
    if rest:
        raise ValueError(f"{num_experts} experts, {num_ranks} ranks")
    for rank in range(num_ranks):
        if rank * size <= expert < (rank + 1) * size:
            return rank
    raise ValueError(f"no expert {expert}")


def scaled(expert, num_experts, num_ranks):
    if num_ranks < 1 or num_experts < num_ranks or num_experts / num_ranks != num_experts // num_ranks:
        raise ValueError((num_experts, num_ranks))
    if expert not in range(num_experts):
        raise ValueError(expert)
    return expert * num_ranks // num_experts
