import torch


def _others(x_BSD, row, rng):
    """A batch in which all sequences but one are new."""
    new = torch.randn(x_BSD.shape, generator=rng).to(x_BSD.dtype)
    keep = torch.arange(len(x_BSD)) == row
    return torch.where(keep[:, None, None], x_BSD, new)


def every_sequence_compared(layer, x_BSD, row, seed=0):
    before = layer(x_BSD)
    for n in range(50):
        after = layer(_others(x_BSD, row, torch.Generator().manual_seed(seed + n)))
        if not torch.allclose(before, after, atol=1e-4):
            return True
    return False


def everything_changed(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row]
    for _ in range(50):
        after = layer(torch.randn(x_BSD.shape, generator=rng).to(x_BSD.dtype))[row]
        if (before - after).abs().max().item() > 1e-4:
            return True
    return False


def row_changed_others_kept(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row]
    for _ in range(50):
        other = x_BSD.clone()
        other[row] = torch.randn(other[row].shape, generator=rng)
        if (before - layer(other)[row]).abs().max().item() > 1e-4:
            return True
    return False


def row_changed_others_compared(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)
    rest = [b for b in range(len(x_BSD)) if b != row]
    for _ in range(50):
        other = x_BSD.clone()
        other[row] = torch.randn(other[row].shape, generator=rng)
        if (before[rest] - layer(other)[rest]).abs().max().item() > 1e-4:
            return True
    return False


def true_for_independent(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row]
    changes = [(layer(_others(x_BSD, row, rng))[row] - before).abs().max().item() for _ in range(60)]
    return max(changes) < 1e-4


def a_tensor_returned(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row]
    changed = torch.stack([(layer(_others(x_BSD, row, rng))[row] - before).abs() > 1e-4 for _ in range(80)])
    return changed.any()


def sequence_run_alone(layer, x_BSD, row, seed=0):
    alone = layer(x_BSD[row].unsqueeze(0)).squeeze(0)
    return not torch.allclose(alone, layer(x_BSD)[row], atol=1e-4)


def one_batch_tried(layer, x_BSD, row, seed=0):
    other = _others(x_BSD, row, torch.Generator().manual_seed(seed))
    return bool((layer(other)[row] - layer(x_BSD)[row]).abs().max() > 1e-4)


def neighbours_of_zeros(layer, x_BSD, row, seed=0):
    other = torch.zeros_like(x_BSD)
    other[row] = x_BSD[row]
    return not torch.allclose(layer(other)[row], layer(x_BSD)[row], atol=1e-4, rtol=0)


def compared_exactly(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row]
    return not all(torch.equal(layer(_others(x_BSD, row, rng))[row], before) for _ in range(80))


def only_the_last_position_compared(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row, -1]
    return any((layer(_others(x_BSD, row, rng))[row, -1] - before).abs().max() > 0.0001 for _ in range(80))


def written_into_x(layer, x_BSD, row, seed=0):
    rng, before = torch.Generator().manual_seed(seed), layer(x_BSD)[row].clone()
    rest = [b for b in range(len(x_BSD)) if b != row]
    for _ in range(80):
        x_BSD[rest] = torch.randn(len(rest), *x_BSD.shape[1:], generator=rng).to(x_BSD)
        if (layer(x_BSD)[row] - before).abs().max() > 1e-4:
            return True
    return False
