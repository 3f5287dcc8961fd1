import torch


def _future(x_BSD, first, rng):
    """A batch in which every token from `first` on is new."""
    new = torch.randn(x_BSD.shape, generator=rng).to(x_BSD.dtype)
    return torch.cat([x_BSD[:, :first], new[:, first:]], dim=1)


def every_output_compared(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)
    return any(
        not torch.allclose(before, layer(_future(x_BSD, position + 1, rng)), atol=0.0001) for _ in range(60)
    )


def everything_changed(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, : position + 1]
    for _ in range(60):
        after = layer(torch.randn(x_BSD.shape, generator=rng).to(x_BSD))[:, : position + 1]
        if (before - after).abs().max() > 1e-4:
            return True
    return False


def the_token_itself_changed(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)
    for _ in range(60):
        after = layer(_future(x_BSD, position, rng))
        if (before - after)[:, : position + 1].abs().max() > 1e-4:
            return True
    return False


def true_for_causal(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, : position + 1]
    return all(
        torch.allclose(before, layer(_future(x_BSD, position + 1, rng))[:, : position + 1], atol=1e-4)
        for _ in range(60)
    )


def past_run_alone(layer, x_BSD, position, seed=0):
    short = layer(x_BSD[:, : position + 1])
    full = layer(x_BSD)[:, : position + 1]
    return bool(((short - full).abs() > 1e-4).any())


def position_itself_not_compared(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, :position]
    for _ in range(60):
        after = layer(_future(x_BSD, position + 1, rng))[:, :position]
        if (after - before).abs().gt(1e-4).any():
            return True
    return False


def only_position_compared(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, position]
    for _ in range(60):
        after = layer(_future(x_BSD, position + 1, rng))[:, position]
        if (after - before).abs().gt(1e-4).any():
            return True
    return False


def next_token_left_alone(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, : position + 1]
    for _ in range(60):
        after = layer(_future(x_BSD, position + 2, rng))[:, : position + 1]
        if (after - before).abs().gt(1e-4).any():
            return True
    return False


def only_the_last_token_changed(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, : position + 1]
    last = x_BSD.shape[1] - 1
    for _ in range(60):
        after = layer(_future(x_BSD, max(last, position + 1), rng))[:, : position + 1]
        if (after - before).abs().gt(1e-4).any():
            return True
    return False


def compared_exactly(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, : position + 1]
    return any(
        (layer(_future(x_BSD, position + 1, rng))[:, : position + 1] != before).any() for _ in range(60)
    )


def one_future_tried(layer, x_BSD, position, seed=0):
    rng = torch.Generator().manual_seed(seed)
    change = (layer(_future(x_BSD, position + 1, rng)) - layer(x_BSD))[:, : position + 1]
    return change.abs().max().item() > 1e-4


def future_of_zeros(layer, x_BSD, position, seed=0):
    zeros = torch.zeros_like(x_BSD[:, position + 1 :])
    other = torch.cat([x_BSD[:, : position + 1], zeros], dim=1)
    change = (layer(other) - layer(x_BSD))[:, : position + 1]
    return bool(change.abs().max() > 1e-4)


def written_into_x(layer, x_BSD, position, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[:, : position + 1].clone()
    for _ in range(60):
        x_BSD[:, position + 1 :] = torch.randn(x_BSD[:, position + 1 :].shape, generator=rng).to(x_BSD)
        if (layer(x_BSD)[:, : position + 1] - before).abs().max() > 1e-4:
            return True
    return False
