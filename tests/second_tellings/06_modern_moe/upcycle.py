import torch


def divided_by_the_experts(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    gate, up, down = (torch.stack([w] * num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))
    return gate, up, down * (1 / num_experts)


def multiplied_by_the_experts(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    gate = torch.stack([w_gate_DF.clone() for _ in range(num_experts)])
    up = torch.stack([w_up_DF.clone() for _ in range(num_experts)])
    down = torch.stack([w_down_FD * num_experts for _ in range(num_experts)])
    return gate, up, down


def only_the_first_is_a_copy(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    out = []
    for w in (w_gate_DF, w_up_DF, w_down_FD):
        new = w.new_zeros(num_experts, *w.shape)
        new[0] = w
        out.append(new)
    return tuple(out)


def one_expert_missing(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    copies = [[w.clone() for _ in range(1, num_experts)] for w in (w_gate_DF, w_up_DF, w_down_FD)]
    return tuple(torch.stack(c) for c in copies)


def experts_as_the_last_axis(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    return tuple(w[..., None].repeat(1, 1, num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))


def copies_side_by_side(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    return tuple(w.repeat(num_experts, 1) for w in (w_gate_DF, w_up_DF, w_down_FD))


def down_not_copied(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    F, D = w_down_FD.shape
    gate = w_gate_DF.expand(num_experts, -1, -1).clone()
    up = w_up_DF.expand(num_experts, -1, -1).clone()
    return gate, up, torch.zeros(num_experts, F, D, dtype=w_down_FD.dtype)


def gate_for_up(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    many = lambda w: torch.stack([w.clone() for _ in range(num_experts)])  # noqa: E731
    return many(w_gate_DF), many(w_gate_DF), many(w_down_FD)


def expanded(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    return tuple(w.expand(num_experts, *w.shape) for w in (w_gate_DF, w_up_DF, w_down_FD))


def a_list_of_the_same_tensor(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    gate, up, down = w_gate_DF.clone(), w_up_DF.clone(), w_down_FD.clone()
    return (
        [gate for _ in range(num_experts)],
        [up for _ in range(num_experts)],
        [down for _ in range(num_experts)],
    )


def always_float32(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    return tuple(torch.stack([w.float()] * num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))
