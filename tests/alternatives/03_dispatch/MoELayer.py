import torch
import torch.nn.functional as F
from torch import nn


class SortedDispatch(nn.Module):
    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__()
        self.top_k, self.renormalize = top_k, renormalize
        self.router = nn.Parameter(torch.empty(d_model, num_experts))
        self.w_gate = nn.Parameter(torch.empty(num_experts, d_model, d_ff))
        self.w_up = nn.Parameter(torch.empty(num_experts, d_model, d_ff))
        self.w_down = nn.Parameter(torch.empty(num_experts, d_ff, d_model))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x_BSD):
        x_TD = x_BSD.reshape(-1, x_BSD.size(-1))
        probs_TE = F.softmax(x_TD.float() @ self.router.float(), dim=-1)
        weights_TK, idx_TK = probs_TE.topk(self.top_k, dim=-1)
        if self.renormalize:
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        order_N = idx_TK.flatten().argsort(stable=True)
        counts = torch.bincount(idx_TK.flatten(), minlength=len(self.w_gate)).tolist()
        groups = x_TD[order_N // self.top_k].split(counts)
        outs = [self._expert(e, rows) for e, rows in enumerate(groups)]
        rows = torch.cat(outs) * weights_TK.to(x_TD.dtype).flatten()[order_N, None]
        y_TD = torch.zeros_like(x_TD).index_add(0, order_N // self.top_k, rows)
        return y_TD.view(x_BSD.shape), idx_TK

    def _expert(self, e, x):
        return (F.silu(x @ self.w_gate[e]) * (x @ self.w_up[e])) @ self.w_down[e]


class LoopWithParameterCalls(nn.Module):
    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__()
        shapes = {
            "router": (d_model, num_experts),
            "w_gate": (num_experts, d_model, d_ff),
            "w_up": (num_experts, d_model, d_ff),
            "w_down": (num_experts, d_ff, d_model),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape) * shape[-2] ** -0.5))
        self.k, self.renormalize = top_k, renormalize

    def forward(self, x_BSD):
        b, s, d = x_BSD.shape
        x = x_BSD.contiguous().view(b * s, d)
        logits = torch.einsum("td,de->te", x.to(torch.float32), self.router.to(torch.float32))
        idx = logits.argsort(dim=-1, descending=True)[:, : self.k]
        probs = logits.softmax(-1).gather(1, idx)
        weights = (probs / probs.sum(-1, keepdim=True) if self.renormalize else probs).to(x.dtype)
        y = torch.zeros_like(x)
        for e in range(self.w_gate.size(0)):
            token, slot = (idx == e).nonzero(as_tuple=True)
            hidden = F.silu(x[token] @ self.w_gate[e]) * (x[token] @ self.w_up[e])
            y = y.index_add(0, token, weights[token, slot, None] * (hidden @ self.w_down[e]))
        return y.view(b, s, d), idx


class EveryExpertOnEveryToken(nn.Module):
    """Dense compute with gates of 0: slow, and right."""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__()
        self.top_k, self.renormalize = top_k, renormalize
        self.w_down = nn.Parameter(torch.randn(num_experts, d_ff, d_model) / d_ff)
        self.w_up, self.w_gate = (
            nn.Parameter(torch.randn(num_experts, d_model, d_ff) / d_model) for _ in range(2)
        )
        self.router = nn.Parameter(torch.randn(d_model, num_experts) / 10)

    def forward(self, x_BSD):
        probs_BSE = (x_BSD.float() @ self.router.float()).softmax(-1)
        top_BSK, idx_BSK = probs_BSE.topk(self.top_k)
        gates_BSE = torch.zeros_like(probs_BSE).scatter(-1, idx_BSK, top_BSK)
        if self.renormalize:
            gates_BSE = gates_BSE / gates_BSE.sum(-1, keepdim=True)
        gate_BSEF = torch.einsum("bsd,edf->bsef", x_BSD, self.w_gate)
        up_BSEF = torch.einsum("bsd,edf->bsef", x_BSD, self.w_up)
        out_BSED = torch.einsum("bsef,efd->bsed", F.silu(gate_BSEF) * up_BSEF, self.w_down)
        y_BSD = torch.einsum("bse,bsed->bsd", gates_BSE.to(x_BSD.dtype), out_BSED)
        return [y_BSD, idx_BSK.flatten(0, 1)]
