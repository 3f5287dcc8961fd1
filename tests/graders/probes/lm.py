"""Probes of notebook 07: they run a learner's block, training step and sampler, and report plain data."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from moe_course.grading.exercises.protocol import Outcome, plain, raised
from moe_course.grading.worker.pristine import ours, theirs


def guarded(work: Callable[[], Any]) -> Outcome:
    """The value of `work()`, or the exception that a learner's code raised in it."""
    try:
        with torch.random.fork_rng(devices=[]):
            return Outcome(value=plain(work()))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome(error=raised(error))


def objective_of_lists(
    namespace: Mapping[str, Any],
    ce: torch.Tensor,
    lb_losses_L: torch.Tensor,
    z_losses_L: torch.Tensor,
    lb_weight: float,
    z_weight: float,
) -> Outcome:
    """moe_objective of lists of 0-dim losses, and the gradient of every number that went in.

    value: (result, gradient of ce, gradients of the losses as two lists); None where no gradient arrived.
    """

    def work() -> Any:
        leaves = [
            [loss.clone().requires_grad_() for loss in losses]
            for losses in (ce[None], lb_losses_L, z_losses_L)
        ]
        (own_ce,), lb_losses, z_losses = leaves
        result = theirs(namespace["moe_objective"], own_ce, lb_losses, z_losses, lb_weight, z_weight)
        if isinstance(result, torch.Tensor) and result.requires_grad and result.numel() == 1:
            theirs(result.backward)
        return result, own_ce.grad, [loss.grad for loss in lb_losses], [loss.grad for loss in z_losses]

    return guarded(work)


class _Answer:
    """What the probe's feed-forward layer hands over as aux: the sum of what it was given."""

    def __init__(self, total: float):
        self.total = total


class _Sine:
    """A feed-forward layer that answers scale · sin(x), and remembers what it was given."""

    def __init__(self, scale: float):
        self.scale, self.given = scale, []

    @ours
    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, _Answer]:
        self.given.append(x.detach().clone())
        return self.scale * torch.sin(x), _Answer(float(x.detach().double().sum()))


class _Mixing(nn.Module):
    """A feed-forward layer with parameters of its own, which adds a number while it is in training."""

    def __init__(self, d_model: int, number: float):
        super().__init__()
        self.mix = nn.Linear(d_model, d_model)
        self.number = number

    @ours
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.sin(self.mix(x)) + self.number * self.training, None


def block_runs(
    namespace: Mapping[str, Any],
    d_model: int,
    num_heads: int,
    inputs: list,
    scale: float,
    seed: int,
    weights: Literal["redraw", "fresh", "zero"] = "redraw",
) -> Outcome:
    """One TransformerBlock around a feed-forward layer that answers scale · sin(x), run on each input in turn.

    Its matrices are drawn anew from `seed`, so that no way of initialising decides, or left as they are ("fresh"), or
    set to zero. The layer's aux is the sum of what it was given. value: for each input {y, given: what the layer was
    given, call by call, pair: whether the block returned a pair, total: the sum that the pair's second part holds,
    None where that is not the layer's aux, kind: that part's type, after: the input after the call}.
    """

    def work() -> Any:
        torch.manual_seed(seed)
        ffn = _Sine(scale)
        block = theirs(lambda: namespace["TransformerBlock"](d_model, num_heads, ffn).to(inputs[0].dtype))
        if weights != "fresh":
            _redraw(block, seed, 1.0 if weights == "redraw" else 0.0)
        return [_run(block, ffn, x) for x in inputs]

    return guarded(work)


def _run(block: Any, ffn: _Sine, x: torch.Tensor) -> dict[str, Any]:
    given = x.clone(memory_format=torch.preserve_format)
    ffn.given = []
    result = theirs(block, given)
    pair = isinstance(result, tuple | list) and len(result) == 2
    total = result[1].total if pair and type(result[1]) is _Answer else None
    return {
        "y": result[0] if pair else result,
        "given": ffn.given,
        "total": total,
        "pair": pair,
        "kind": type(result[1]).__name__ if pair else "",
        "after": given,
    }


def _redraw(block: Any, seed: int, scale: float = 1.0) -> None:
    """Give every matrix new numbers of size scale/√fan-in; gains that start at 1 stay, however they are shaped."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            drawn = scale * torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2 and not bool((parameter == 1).all()):
                parameter.copy_(drawn * parameter.shape[-1] ** -0.5)


def block_with_module(
    namespace: Mapping[str, Any],
    d_model: int,
    num_heads: int,
    x_BSD: torch.Tensor,
    dy_BSD: torch.Tensor,
    seed: int,
) -> Outcome:
    """A TransformerBlock around a module, in float64: what belongs to it, and which gradients arrive.

    In training the module adds the first number of dy_BSD to its answer. In the end that number is also added to all
    of the block's parameters. value: dropped: y in training less y after block.eval(); moved: by how much the
    module's bias changed then;
    parameters: (number of axes, whether a gradient arrived, its largest size) of each of the block's and the
    module's; dx and slopes: the gradient of (y · dy).sum() at x, from autograd and from differences.
    """

    def work() -> Any:
        torch.manual_seed(seed)
        number = float(dy_BSD.flatten()[0])
        ffn = _Mixing(d_model, number).double()
        block = theirs(lambda: namespace["TransformerBlock"](d_model, num_heads, ffn).double())
        _redraw(block, seed)
        _redraw(ffn, seed + 1)
        x = x_BSD.double().requires_grad_()
        theirs(loss(block, x).backward)
        everything = {id(p): p for p in (*block.parameters(), *ffn.parameters())}.values()
        parameters = [
            (p.dim(), p.grad is not None, 0.0 if p.grad is None else float(p.grad.abs().max()))
            for p in everything
        ]
        slopes = torch.zeros_like(x_BSD, dtype=torch.float64)
        for place in range(
            x_BSD.numel()
        ):  # with gradients, as above: a block cannot tell the one from the other
            step = torch.zeros(x_BSD.numel(), dtype=torch.float64)
            step[place] = 1e-3
            ends = [(x.detach() + sign * step.view_as(x)).requires_grad_() for sign in (1, -1)]
            slopes.view(-1)[place] = torch.sub(*(loss(block, end).detach() for end in ends)) / 2e-3
        with torch.no_grad():
            trained = output(block, x_BSD.double())
            theirs(block.eval)
            dropped = trained - output(block, x_BSD.double())
            before = ffn.mix.bias.clone()
            for parameter in block.parameters():
                parameter.add_(number)
        return {
            "dropped": dropped,
            "moved": ffn.mix.bias.detach() - before,
            "parameters": parameters,
            "dx": x.grad,
            "slopes": slopes,
        }

    def output(block: Any, x: torch.Tensor) -> torch.Tensor:
        result = theirs(block, x)
        return result[0] if isinstance(result, tuple | list) else result

    def loss(block: Any, x: torch.Tensor) -> torch.Tensor:
        return (output(block, x) * dy_BSD.double()).sum()

    return guarded(work)


class _Aux:
    def __init__(self, lb_losses: list, z_losses: list):
        self.lb_losses, self.z_losses = lb_losses, z_losses


class _Bigram(nn.Module):
    """A model of one token of memory, with losses beside it that depend on its parameters."""

    def __init__(self, state: dict[str, torch.Tensor], layers: int):
        super().__init__()
        self.table = nn.Parameter(state["table"].clone())
        self.head = nn.Parameter(state["head"].clone())
        self.routers = nn.Parameter(state["routers"].clone())
        self.layers = layers
        self.seen: list[torch.Tensor] = []

    @ours
    def forward(self, tokens_BS: torch.Tensor) -> tuple[torch.Tensor, _Aux]:
        self.seen.append(tokens_BS.detach().clone())
        h = self.table[tokens_BS]
        logits = [h @ self.routers[:, layer] for layer in range(self.layers)]
        lb_losses = [torch.exp(each).mean() for each in logits]
        z_losses = [(each**2).mean() for each in logits]
        return h @ self.head, _Aux(lb_losses, z_losses)


def train_steps(
    namespace: Mapping[str, Any],
    state: dict[str, torch.Tensor],
    batches: list,
    optimizer: str,
    rate: float,
    layers: int,
    lb_weight: float,
    z_weight: float,
    clip: float,
) -> Outcome:
    """train_step on each batch of tokens_BS1, with a bigram model and "sgd" or "adam".

    The model: h = table[tokens]; logits = h · head; layer l has the losses mean(exp(h · routers[:, l])) and
    mean((h · routers[:, l])²). value: {returned, after: the parameters by name, seen: the inputs of the model}.
    """

    def work() -> Any:
        model = _Bigram(state, layers)
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        own = kinds[optimizer](model.parameters(), lr=rate)
        returned = [
            theirs(namespace["train_step"], model, tokens_BS1.clone(), own, lb_weight, z_weight, clip)
            for tokens_BS1 in batches
        ]
        after = {name: parameter.detach() for name, parameter in model.named_parameters()}
        return {"returned": returned, "after": after, "seen": model.seen}

    return guarded(work)


def draws(
    namespace: Mapping[str, Any],
    logits_V: torch.Tensor,
    temperature: float,
    top_p: float,
    seed: int,
    count: int,
    global_seed: int = 0,
) -> Outcome:
    """`count` calls of sample_next with one generator that starts from `seed`, and torch's own from `global_seed`.

    value: (tokens, the numbers that torch's and Python's own generators give afterwards, the logits afterwards).
    """

    def work() -> Any:
        torch.manual_seed(global_seed)
        state = random.getstate()
        random.seed(global_seed)
        try:
            generator = torch.Generator().manual_seed(seed)
            given = logits_V.clone()
            sample = namespace["sample_next"]
            tokens = theirs(lambda: [sample(given, temperature, top_p, generator) for _ in range(count)])
            return tokens, [torch.rand(4).tolist(), [random.random() for _ in range(4)]], given
        finally:
            random.setstate(state)

    return guarded(work)
