"""What the right answers of notebook 11 are, computed slowly and obviously, independent of the library.

Gates come as a dense matrix (T, E): each token's weight for each expert, 0 where it is not chosen. No order of slots
can change it.
"""

from __future__ import annotations

import torch

from graders import oracles


def chosen(values_TE: torch.Tensor, k: int) -> torch.Tensor:
    """1 for the k largest of each row, 0 elsewhere, in float64."""
    return torch.nn.functional.one_hot(oracles.top_k(values_TE, k), values_TE.shape[1]).sum(1).double()


def shares(values_TE: torch.Tensor, chosen_TE: torch.Tensor) -> torch.Tensor:
    """The values of the chosen ones, over their sum."""
    kept_TE = values_TE * chosen_TE
    return kept_TE / kept_TE.sum(1, keepdim=True)


def gate(logits_TE: torch.Tensor, k: int) -> torch.Tensor:
    """One expert weighs its probability among all; several share 1 in the proportion of their probabilities."""
    probs_TE, chosen_TE = oracles.softmax(logits_TE), chosen(logits_TE, k)
    return (probs_TE * chosen_TE if k == 1 else shares(probs_TE, chosen_TE)).to(logits_TE.dtype)


def routing(x_TD: torch.Tensor, router_DE: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest probabilities of each token over their sum, from products in float64."""
    probs_TE = oracles.softmax(x_TD.double() @ router_DE.double())
    return shares(probs_TE, chosen(probs_TE, k)).to(x_TD.dtype)


def balance(x_TD: torch.Tensor, router_DE: torch.Tensor, k: int) -> torch.Tensor:
    """E·Σ f_e·P_e (Switch, eq. 4 to 6), in float64."""
    probs_TE = oracles.softmax(x_TD.double() @ router_DE.double())
    f_E = chosen(probs_TE, k).sum(0) / (len(x_TD) * k)
    return probs_TE.shape[1] * (f_E * probs_TE.mean(0)).sum()


def biased_gate(scores_TE: torch.Tensor, bias_E: torch.Tensor, k: int) -> torch.Tensor:
    """Chosen by score + bias, in the precision of the scores; weighted by the scores alone."""
    return shares(scores_TE.double(), chosen(scores_TE + bias_E, k)).to(scores_TE.dtype)


def context_router(x_BSD: torch.Tensor, router_DE: torch.Tensor) -> torch.Tensor:
    """Position by position: the token plus the mean of all tokens up to it."""
    rows = []
    for x_SD in x_BSD.double():
        seen = [x_SD[s] + sum(x_SD[: s + 1]) / (s + 1) for s in range(len(x_SD))]
        rows.append(oracles.softmax(torch.stack(seen) @ router_DE.double()))
    return torch.stack(rows).float()


class Gate:
    """The gate with a bias, as plain arithmetic on what a program of the probe `gate_program` does."""

    def __init__(self, router_DE: torch.Tensor, bias_E: torch.Tensor, top_k: int):
        self.router_DE, self.bias_E, self.top_k = router_DE, bias_E.double(), top_k
        self.counts_E = torch.zeros(len(bias_E), dtype=torch.float64)

    def scores(self, x_TD: torch.Tensor) -> torch.Tensor:
        """The sigmoid of x·W, in float64."""
        return 1 / (1 + torch.exp(-(x_TD.double() @ self.router_DE.double())))

    def gates(self, x_TD: torch.Tensor) -> torch.Tensor:
        """The weights of every token, as a dense matrix."""
        scores_TE = self.scores(x_TD)
        return shares(scores_TE, chosen(scores_TE + self.bias_E, self.top_k))

    def margin(self, x_TD: torch.Tensor) -> float:
        """By how much the nearest choice of an expert was decided."""
        sorted_TE = (self.scores(x_TD) + self.bias_E).sort(-1, descending=True).values
        return float((sorted_TE[:, self.top_k - 1] - sorted_TE[:, self.top_k]).min())

    def count(self, x_TD: torch.Tensor) -> None:
        """Every assignment of these tokens, once."""
        self.counts_E += (self.gates(x_TD) != 0).sum(0)

    def update(self, rate: float) -> None:
        """A step up below the mean, down above it; then the counts start anew."""
        self.bias_E = self.bias_E + rate * torch.sign(self.counts_E.mean() - self.counts_E)
        self.counts_E.zero_()
