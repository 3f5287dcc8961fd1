import torch


def other_neighbours(layer, x_BSD, row):
    with torch.no_grad():
        mine_SD = layer(x_BSD)[row]
        for _ in range(100):
            other_BSD = torch.randn_like(x_BSD)
            other_BSD[row] = x_BSD[row]
            if (layer(other_BSD)[row] - mine_SD).abs().max() > 1e-4:
                return True
    return False


def largest_change_of_all(layer, x_BSD, row):
    others_B11 = (torch.arange(len(x_BSD)) != row)[:, None, None]
    batches = [torch.where(others_B11, torch.randn_like(x_BSD), x_BSD) for _ in range(120)]
    outs = torch.stack([layer(x_BSD), *map(layer, batches)])[:, row]
    return (outs[1:] - outs[0]).abs().max().item() > 2e-5


def compared_with_testing(layer, x_BSD, row):
    before = layer(x_BSD).detach()[row].double()
    for _ in range(150):
        above, below = (
            torch.normal(0.0, 1.5, part.shape).to(x_BSD) for part in (x_BSD[:row], x_BSD[row + 1 :])
        )
        after = layer(torch.cat([above, x_BSD[row : row + 1], below])).detach()[row].double()
        try:
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
        except AssertionError:
            return True
    return False
