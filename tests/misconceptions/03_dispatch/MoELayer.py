import torch
import torch.nn.functional as F
from torch import nn

from moe_course.grading.judge.catalogue import caught_by


class _Layer(nn.Module):
    """A right layer, whose steps the misconceptions below get wrong one at a time."""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__()
        self.top_k, self.renormalize = top_k, renormalize
        self.router = nn.Parameter(torch.randn(d_model, num_experts))
        self.w_gate = nn.Parameter(torch.randn(num_experts, d_model, d_ff))
        self.w_up = nn.Parameter(torch.randn(num_experts, d_model, d_ff))
        self.w_down = nn.Parameter(torch.randn(num_experts, d_ff, d_model))

    def forward(self, x_BSD):
        x_TD = self.flat(x_BSD)
        weights_TK, idx_TK = self.route(x_TD)
        y_TD = self.mix(x_TD, weights_TK, idx_TK)
        return self.restore(y_TD, x_BSD), idx_TK

    def flat(self, x_BSD):
        return x_BSD.reshape(-1, x_BSD.shape[-1])

    def restore(self, y_TD, x_BSD):
        return y_TD.reshape(x_BSD.shape)

    def logits(self, x_TD):
        return x_TD.float() @ self.router.float()

    def route(self, x_TD):
        weights_TK, idx_TK = torch.softmax(self.logits(x_TD), dim=-1).topk(self.top_k)
        if self.renormalize:
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        return weights_TK, idx_TK

    def mix(self, x_TD, weights_TK, idx_TK):
        y_TD = torch.zeros_like(x_TD)
        for e in range(len(self.w_gate)):
            token, slot = torch.where(idx_TK == e)
            x = x_TD[token]
            out = (F.silu(x @ self.w_gate[e]) * (x @ self.w_up[e])) @ self.w_down[e]
            y_TD = y_TD.index_add(0, token, (weights_TK[token, slot, None] * out).to(x_TD.dtype))
        return y_TD


@caught_by("parameters")
class PlainTensors(_Layer):
    """A tensor in an attribute: how would an optimizer know that it may change it?"""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in ("router", "w_gate", "w_up", "w_down"):
            value = getattr(self, name).detach()
            delattr(self, name)
            setattr(self, name, value)


@caught_by("parameters")
class RouterAsLinear(_Layer):
    """nn.Linear keeps its matrix under another name, and turned. Which name and shape does the layer promise?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize)
        del self.router
        self.router = nn.Linear(d_model, num_experts, bias=False)

    def logits(self, x_TD):
        return self.router(x_TD)


@caught_by("parameters")
class RouterTurned(_Layer):
    """Weights are stored input first. Which axis of the router is its input?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize)
        self.router = nn.Parameter(torch.randn(num_experts, d_model))

    def logits(self, x_TD):
        return x_TD.float() @ self.router.float().T


@caught_by("parameters")
class ExpertsTurned(_Layer):
    """Weights are stored input first. Does w_down take D numbers, or F?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize)
        self.w_down = nn.Parameter(torch.randn(num_experts, d_model, d_ff))


@caught_by("parameters")
class RouterFrozen(_Layer):
    """requires_grad=False on the router: who decides then where tokens go, and when does it learn?"""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.router.requires_grad_(False)


@caught_by("output")
class ShapeNotRestored(_Layer):
    """(B, S, D) came in. What does the block around your layer do with (T, D)?"""

    def restore(self, y_TD, x_BSD):
        return y_TD


@caught_by("output")
class RestoredThroughTheWrongAxes(_Layer):
    """The token after the first is the next one of the same sequence. Where does your reshape put it?"""

    def restore(self, y_TD, x_BSD):
        batch, length, width = x_BSD.shape
        return y_TD.reshape(length, batch, width).transpose(0, 1)


@caught_by("output")
class ResidualAdded(_Layer):
    """Who adds the residual, the layer or the block around it?"""

    def restore(self, y_TD, x_BSD):
        return x_BSD + y_TD.reshape(x_BSD.shape)


@caught_by("output")
class SoftmaxOverTheTokens(_Layer):
    """Which numbers should add up to 1: those of a token, or those of an expert?"""

    def route(self, x_TD):
        probs_TE = torch.softmax(self.logits(x_TD), dim=0)
        weights_TK, idx_TK = probs_TE.topk(self.top_k)
        return weights_TK / weights_TK.sum(-1, keepdim=True) if self.renormalize else weights_TK, idx_TK


@caught_by("output")
class WeightsIgnored(_Layer):
    """Do all experts of a token count the same?"""

    def mix(self, x_TD, weights_TK, idx_TK):
        return super().mix(x_TD, torch.ones_like(weights_TK), idx_TK)


@caught_by("output")
class PlusEqualsOnRepeatedIndices(_Layer):
    """`y[token_N] += rows` writes each token once. A token stands there top_k times: which of its rows is left?"""

    def mix(self, x_TD, weights_TK, idx_TK):
        order_N = idx_TK.flatten().argsort(stable=True)
        token_N, expert_N = order_N // self.top_k, idx_TK.flatten()[order_N]
        x_N1D = x_TD[token_N, None]
        hidden_N1F = F.silu(x_N1D @ self.w_gate[expert_N]) * (x_N1D @ self.w_up[expert_N])
        rows_ND = (hidden_N1F @ self.w_down[expert_N])[:, 0]
        y_TD = torch.zeros_like(x_TD)
        y_TD[token_N] += (weights_TK.flatten()[order_N, None] * rows_ND).to(x_TD.dtype)
        return y_TD


@caught_by("output")
class FirstChoiceOnly(_Layer):
    """A token has top_k experts. How many of them run?"""

    def mix(self, x_TD, weights_TK, idx_TK):
        return super().mix(x_TD, weights_TK[:, :1], idx_TK[:, :1])


@caught_by("output")
class LogitsAsWeights(_Layer):
    """A logit can be negative. What does a softmax make of it before it weighs an expert?"""

    def route(self, x_TD):
        weights_TK, idx_TK = self.logits(x_TD).topk(self.top_k)
        return weights_TK, idx_TK


@caught_by("output")
class LogitsAsWeights__Renormalised(_Layer):
    """A logit can be negative. What does a softmax make of it before it weighs an expert?"""

    def route(self, x_TD):
        weights_TK, idx_TK = self.logits(x_TD).topk(self.top_k)
        if self.renormalize:
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        return weights_TK, idx_TK


@caught_by("indices")
class IndicesWithBatchAndSequence(_Layer):
    """The balancing of notebook 04 wants one row for each token. Which shape has your idx?"""

    def forward(self, x_BSD):
        y_BSD, idx_TK = super().forward(x_BSD)
        return y_BSD, idx_TK.reshape(*x_BSD.shape[:2], -1)


@caught_by("indices")
class SequencesInterleaved(_Layer):
    """Row 1 of idx_TK: is it the second token of the first sequence, or the first token of the second?"""

    def forward(self, x_BSD):
        y_SBD, idx_TK = super().forward(x_BSD.transpose(0, 1))
        return y_SBD.transpose(0, 1), idx_TK


@caught_by("indices")
class WeightsReturned(_Layer):
    """Two results: the output, and which experts each token went to. What do you return second?"""

    def forward(self, x_BSD):
        weights_TK, _ = self.route(self.flat(x_BSD))
        return super().forward(x_BSD)[0], weights_TK


@caught_by("renormalize")
class AlwaysRenormalised(_Layer):
    """The constructor has a last argument. Where in `forward` does it make a difference?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k)


@caught_by("renormalize")
class NeverRenormalised(_Layer):
    """The weights of the chosen sum to less than 1. What does `renormalize` ask for?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize=False)


@caught_by("renormalize")
class NotByDefault(_Layer):
    """Which default does the signature give `renormalize`?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=False):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize)


@caught_by("ends")
class OnesSqueezedAway(_Layer):
    """squeeze() takes away every dimension of size 1. Which of yours may be 1?"""

    def restore(self, y_TD, x_BSD):
        return y_TD.reshape(x_BSD.shape).squeeze()


@caught_by("ends")
class TwoChoicesAtLeast(_Layer):
    """What becomes of top_k = 1?"""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, max(2, top_k), renormalize)


@caught_by("gradients")
class RouterDetached(_Layer):
    """Through what does the task reach the router, if not through the weights?"""

    def route(self, x_TD):
        weights_TK, idx_TK = super().route(x_TD)
        return weights_TK.detach(), idx_TK


@caught_by("gradients")
class TokensDetachedFromTheRouter(_Layer):
    """A token reaches the loss in two ways, through its experts and through its weights. Where is the second?"""

    def logits(self, x_TD):
        return x_TD.detach().float() @ self.router.float()


@caught_by("float32_router", form=True)
class RouterInBfloat16(_Layer):
    """The product runs in bfloat16 and is cast afterwards. Do the lost digits come back?"""

    def logits(self, x_TD):
        return (x_TD @ self.router).float()


@caught_by("float32_router", form=True)
class SoftmaxInBfloat16(_Layer):
    """Two probabilities that differ by one in a thousand: does bfloat16 tell them apart?"""

    def route(self, x_TD):
        probs_TE = torch.softmax(self.logits(x_TD), dim=-1).to(x_TD.dtype)
        weights_TK, idx_TK = probs_TE.topk(self.top_k)
        return weights_TK / weights_TK.sum(-1, keepdim=True) if self.renormalize else weights_TK, idx_TK


@caught_by("float32_router", form=True)
class Float32ComesBack(_Layer):
    """Which dtype do the layers above expect when the tokens are bfloat16?"""

    def restore(self, y_TD, x_BSD):
        y_BSD = y_TD.reshape(x_BSD.shape)
        return y_BSD.float() if x_BSD.dtype == torch.bfloat16 else y_BSD


@caught_by("own_parameters")
class ParametersOfTheClass(_Layer):
    """A second layer of the same size: does it get parameters of its own?"""

    drawn = None

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        key = tuple(parameter.shape for parameter in self.parameters())
        if type(self).drawn is None or key not in type(self).drawn:
            type(self).drawn = {key: dict(self.named_parameters())}
        mine = type(self).drawn[key]
        for name, parameter in mine.items():
            setattr(self, name, parameter)


@caught_by("other_inputs", form=True)
class ViewedTokens(_Layer):
    """view() wants the tokens to lie in memory one after the other. Which method copies them if they do not?"""

    def flat(self, x_BSD):
        return x_BSD.view(-1, x_BSD.shape[-1])


@caught_by("other_inputs", form=True)
class EverythingInFloat32(_Layer):
    """What does float() do to float64 tokens?"""

    def mix(self, x_TD, weights_TK, idx_TK):
        if x_TD.dtype != torch.float64:
            return super().mix(x_TD, weights_TK, idx_TK)
        rows_TD = x_TD.float()
        y_TD = torch.zeros_like(rows_TD)
        for e in range(len(self.w_gate)):
            token, slot = torch.where(idx_TK == e)
            x, (gate, up, down) = (
                rows_TD[token],
                (w[e].float() for w in (self.w_gate, self.w_up, self.w_down)),
            )
            out = (F.silu(x @ gate) * (x @ up)) @ down
            y_TD = y_TD.index_add(0, token, weights_TK[token, slot, None] * out)
        return y_TD
