import torch
import torch.nn.functional as F
from torch import nn

from moe_course.grading.judge.catalogue import caught_by


class _Block(nn.Module):
    """A right block, whose steps the misconceptions below get wrong one at a time."""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__()
        self.heads = num_heads
        self.norm1, self.norm2 = nn.RMSNorm(d_model, eps=1e-6), nn.RMSNorm(d_model, eps=1e-6)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.ffn = ffn

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + y_BSD, aux

    def attention(self, x_BSD):
        q, k, v = (self.split(part) for part in self.qkv(x_BSD).chunk(3, dim=-1))
        return self.out(self.merge(self.attend(q, k, v)))

    def split(self, x_BSD):
        return x_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, y):
        return y.transpose(1, 2).flatten(2)

    def attend(self, q, k, v):
        scores = q @ k.mT / q.shape[-1] ** 0.5
        return self.weigh(scores) @ v

    def weigh(self, scores):
        return scores.masked_fill(~self.seen(scores), float("-inf")).softmax(dim=-1)

    def seen(self, scores):
        return torch.ones(scores.shape[-2:], dtype=torch.bool).tril()


@caught_by("pair")
class OnlyTheStream(_Block):
    """The routers' losses come with aux. Who passes it on?"""

    def forward(self, x_BSD):
        return super().forward(x_BSD)[0]


@caught_by("pair")
class AuxInAList(_Block):
    """The model collects one aux a layer. What does it find in yours?"""

    def forward(self, x_BSD):
        y_BSD, aux = super().forward(x_BSD)
        return y_BSD, [aux]


@caught_by("pair")
class NoAux(_Block):
    """Which losses can be added if a block returns None?"""

    def forward(self, x_BSD):
        return super().forward(x_BSD)[0], None


@caught_by("pair")
class AuxFirst(_Block):
    """In which order does the model unpack what a block returns?"""

    def forward(self, x_BSD):
        return super().forward(x_BSD)[::-1]


@caught_by("ffn_called")
class FfnOnRows(_Block):
    """ffn takes (B, S, D). Who flattens, if it must be flattened?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_TD, aux = self.ffn(self.norm2(x_BSD).flatten(0, 1))
        return x_BSD + y_TD.view_as(x_BSD), aux


@caught_by("ffn_called")
class FfnForEachSequence(_Block):
    """A loop over sequences: over which tokens is the load then counted?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        parts = [self.ffn(row[None]) for row in self.norm2(x_BSD)]
        return x_BSD + torch.cat([y for y, _ in parts]), parts[-1][1]


@caught_by("ffn_called")
class FfnCalledTwice(_Block):
    """One call for y and one for aux: what does the second one cost?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        rows = self.norm2(x_BSD)
        return x_BSD + self.ffn(rows)[0], self.ffn(rows)[1]


@caught_by("attention_residual")
class NoResidualAroundAttention(_Block):
    """Where does the embedding of a token go if attention replaces it?"""

    def forward(self, x_BSD):
        x_BSD = self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + y_BSD, aux


@caught_by("attention_residual")
class NoAttention(_Block):
    """Which line of your forward lets a token learn anything from an earlier one?"""

    def forward(self, x_BSD):
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + y_BSD, aux


@caught_by("attention_residual")
class ResidualIsNormalised(_Block):
    """x = norm(x) comes before x + attention(x). What is carried past attention?"""

    def forward(self, x_BSD):
        x_BSD = self.norm1(x_BSD)
        x_BSD = x_BSD + self.attention(x_BSD)
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + y_BSD, aux


@caught_by("attention_residual")
class PostNorm(_Block):
    """norm(x + attention(x)): what is left of a stream of norm 100 after ten such layers?"""

    def forward(self, x_BSD):
        x_BSD = self.norm1(x_BSD + self.attention(x_BSD))
        y_BSD, aux = self.ffn(x_BSD)
        return self.norm2(x_BSD + y_BSD), aux


@caught_by("attention_residual")
class AttentionWithoutNorm(_Block):
    """The stream grows from layer to layer. What does that do to the softmax?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(x_BSD)
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + y_BSD, aux


@caught_by("attention_residual")
class NormAtTheEnd(_Block):
    """The model has a final norm of its own. Who normalises the stream between blocks?"""

    def forward(self, x_BSD):
        y_BSD, aux = super().forward(x_BSD)
        return F.rms_norm(y_BSD, y_BSD.shape[-1:]), aux


@caught_by("no_mean")
class LayerNormFirst(_Block):
    """nn.LayerNorm takes the mean away first. Which norm was asked for?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        self.norm1 = nn.LayerNorm(d_model, eps=1e-6)


@caught_by("no_mean")
class LayerNormTwice(_Block):
    """LayerNorm and RMSNorm agree when the mean is 0. Is it?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        self.norm1, self.norm2 = nn.LayerNorm(d_model, eps=1e-6), nn.LayerNorm(d_model, eps=1e-6)


@caught_by("ffn_norm")
class LayerNormBeforeFfn(_Block):
    """What is the mean of a row after an RMSNorm?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        self.norm2 = nn.LayerNorm(d_model, eps=1e-6)


@caught_by("ffn_norm")
class FfnWithoutNorm(_Block):
    """Each of the two sublayers has a norm in front of it. Where is the second?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(x_BSD)
        return x_BSD + y_BSD, aux


@caught_by("ffn_norm")
class ParallelBlock(_Block):
    """Attention and ffn side by side, both reading x: does ffn see what attention found?"""

    def forward(self, x_BSD):
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + self.attention(self.norm1(x_BSD)) + y_BSD, aux


@caught_by("ffn_norm")
class GainsOfZero(_Block):
    """torch.zeros for the gains: what comes out of such a norm?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        nn.init.zeros_(self.norm2.weight)


@caught_by("ffn_norm")
class UnitLength(_Block):
    """Length 1, or a mean square of 1? How large is a channel when D is 4096?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(F.normalize(x_BSD, dim=-1))
        return x_BSD + y_BSD, aux


@caught_by("ffn_norm")
class NormOverTheSequence(_Block):
    """One mean square for each token, or one for the whole sequence?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(x_BSD * x_BSD.pow(2).mean((1, 2), keepdim=True).rsqrt())
        return x_BSD + y_BSD, aux


@caught_by("ffn_residual")
class NoResidualAroundFfn(_Block):
    """If every expert drops a token, what is left of it?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        return self.ffn(self.norm2(x_BSD))


@caught_by("ffn_residual")
class ResidualOfTheInput(_Block):
    """x + ffn(…) with the x that came in. What became of attention's output?"""

    def forward(self, x_BSD):
        h_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(self.norm2(h_BSD))
        return x_BSD + y_BSD, aux


@caught_by("ffn_residual")
class ResidualAddedTwice(_Block):
    """ffn's own output, or ffn's output plus what went into it?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        rows = self.norm2(x_BSD)
        y_BSD, aux = self.ffn(rows)
        return x_BSD + y_BSD + (rows if bool(y_BSD.any()) else 0), aux


@caught_by("causal")
class NoMask(_Block):
    """Without a mask the answer stands in the question. Will the training loss tell you?"""

    def seen(self, scores):
        return torch.ones(scores.shape[-2:], dtype=torch.bool)


@caught_by("causal")
class MaskOneAhead(_Block):
    """tril(1): which token does position 0 see besides itself?"""

    def seen(self, scores):
        return torch.ones(scores.shape[-2:], dtype=torch.bool).tril(1)


@caught_by("causal")
class MaskTurned(_Block):
    """triu or tril: do rows stand for queries or for keys?"""

    def seen(self, scores):
        return torch.ones(scores.shape[-2:], dtype=torch.bool).triu()


@caught_by("causal")
class MaskAfterTheSoftmax(_Block):
    """The sum in the softmax ran over all keys. Which of them should it know?"""

    def weigh(self, scores):
        return scores.softmax(dim=-1) * self.seen(scores)


@caught_by("causal")
class MaskOfZero(_Block):
    """A score of 0 is not a weight of 0. What is exp(0)?"""

    def weigh(self, scores):
        return scores.masked_fill(~self.seen(scores), 0.0).softmax(dim=-1)


@caught_by("causal")
class SoftmaxOverQueries(_Block):
    """Whose weights sum to 1: those of a query, or those of a key?"""

    def weigh(self, scores):
        return scores.masked_fill(~self.seen(scores), float("-inf")).softmax(dim=-2)


@caught_by("causal")
class HeadsNotTurnedBack(_Block):
    """(B, heads, S, width) read as (B, S, D): whose numbers stand in row 0?"""

    def merge(self, y):
        return y.reshape(y.shape[0], y.shape[2], -1)


@caught_by("attends")
class PastWithoutItself(_Block):
    """tril(−1): what does the first token attend to, and does a token see itself?"""

    def seen(self, scores):
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(-1)
        seen[0, 0] = True
        return seen


@caught_by("attends")
class ItselfOnly(_Block):
    """Which tokens does position 5 hear of?"""

    def seen(self, scores):
        return torch.eye(scores.shape[-1], dtype=torch.bool)


@caught_by("attends")
class TwoTokensBack(_Block):
    """A window of three tokens: how does the model recall the start of the sentence?"""

    def seen(self, scores):
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
        return ones.tril() & ones.triu(-2)


@caught_by("heads")
class OneHead(_Block):
    """Which line of your block uses num_heads?"""

    def split(self, x_BSD):
        return x_BSD[:, None]


@caught_by("submodule")
class FfnHidden(_Block):
    """A module in a list is no child of yours. Will the optimizer ever hear of it?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, None)
        self.hidden = [ffn]

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.hidden[0](self.norm2(x_BSD))
        return x_BSD + y_BSD, aux


@caught_by("submodule")
class ModulesOnly(_Block):
    """ffn may be any callable. What does add_module say to a function?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        del self.ffn
        self.add_module("ffn", ffn)


@caught_by("gradients")
class StreamDetached(_Block):
    """The residual carries the gradient to the layers below. What does detach() do to it?"""

    def forward(self, x_BSD):
        x_BSD = x_BSD.detach() + self.attention(self.norm1(x_BSD))
        y_BSD, aux = self.ffn(self.norm2(x_BSD))
        return x_BSD + y_BSD, aux


@caught_by("gradients")
class AttentionWithoutGradient(_Block):
    """no_grad saves memory. What do q, k and v learn?"""

    def attend(self, q, k, v):
        with torch.no_grad():
            return super().attend(q, k, v)


@caught_by("gradients")
class GainsFrozen(_Block):
    """The gains start at 1. May they change?"""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        self.norm2.weight.requires_grad_(False)


@caught_by("other_inputs", form=True)
class AddsInPlace(_Block):
    """`x += …`: whose x is that?"""

    def forward(self, x_BSD):
        if x_BSD.requires_grad:
            return super().forward(x_BSD)
        before = x_BSD.clone()
        y_BSD, aux = super().forward(before)
        x_BSD += self.attention(self.norm1(before)).to(x_BSD.dtype)
        return y_BSD, aux


@caught_by("other_inputs", form=True)
class AlwaysFloat32(_Block):
    """A model in bfloat16 passes bfloat16 on. What do you pass on?"""

    def forward(self, x_BSD):
        y_BSD, aux = super().forward(x_BSD)
        return y_BSD.float() if y_BSD.dtype == torch.bfloat16 else y_BSD, aux
