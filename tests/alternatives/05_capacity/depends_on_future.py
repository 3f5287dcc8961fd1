import torch


def other_futures(layer, x_BSD, position):
    with torch.no_grad():
        past_BSD = layer(x_BSD)[:, : position + 1]
        for _ in range(100):
            other_BSD = x_BSD.clone()
            other_BSD[:, position + 1 :] = torch.randn_like(other_BSD[:, position + 1 :])
            if (layer(other_BSD)[:, : position + 1] - past_BSD).abs().max() > 1e-4:
                return True
    return False


def largest_change_of_all(layer, x_BSD, position):
    later_S1 = (torch.arange(x_BSD.shape[1]) > position)[:, None]
    futures = [torch.where(later_S1, torch.randn_like(x_BSD), x_BSD) for _ in range(120)]
    outs = torch.stack([layer(x_BSD), *map(layer, futures)])[:, :, : position + 1]
    return (outs[1:] - outs[0]).abs().max().item() > 2e-5


def compared_with_testing(layer, x_BSD, position):
    keep = position + 1
    before = layer(x_BSD).detach()[:, :keep].double()
    later_shape = x_BSD[:, keep:].shape
    for _ in range(150):
        future = torch.normal(0.0, 1.5, later_shape, dtype=x_BSD.dtype)
        after = layer(torch.cat([x_BSD[:, :keep], future], dim=1)).detach()[:, :keep].double()
        if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
            return True
    return False
