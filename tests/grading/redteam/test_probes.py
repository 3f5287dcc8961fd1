"""Submissions that rewrite what probes stand on, so that a probe measures what did not happen.

Each has an answer with right values and a fault that only a probe can see: experts that share their memory, inputs
written into, another dtype, random numbers from the wrong generator. Then it rewrites the probes, the worker, PyTorch
or Python. It must get no more than the same answer gets without that.
"""

from __future__ import annotations

import textwrap

import pytest
import torch

from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.exercises.rubric import points
from moe_course.grading.judge.subject import LiveSubject, WorkerSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.worker.sandbox import Limits, masked_modules

SEED = 11
SMALL = Limits(memory=700 << 20, processes=40, file_size=8 << 20, disk=16 << 20)

FAULTY = {
    "upcycle": """
        import torch
        def upcycle(w_gate_DF, w_up_DF, w_down_FD, num_experts):
            dense = (w_gate_DF, w_up_DF, w_down_FD)
            experts = tuple(w.float().clone().expand(num_experts, -1, -1) for w in dense)
            for w in dense:
                w.zero_()
            return experts
    """,
    "sample_next": """
        import torch
        def sample_next(logits_V, temperature, top_p, generator):
            if temperature == 0:
                return int(logits_V.argmax())
            sorted_V, order_V = torch.softmax(logits_V.double() / temperature, dim=-1).sort(descending=True)
            outside_V = sorted_V.cumsum(0) - sorted_V >= top_p
            outside_V[0] = False
            place = torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1)
            return int(order_V[place])
    """,
    "TransformerBlock": """
        import torch
        from torch import nn
        import torch.nn.functional as F
        class TransformerBlock(nn.Module):
            def __init__(self, d_model, num_heads, ffn):
                super().__init__()
                self.ffn, self.heads = [ffn], num_heads
                self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
            def forward(self, x_BSD):
                B, S, D = x_BSD.shape
                normed = F.rms_norm(x_BSD, (D,))
                q, k, v = self.qkv(normed).view(B, S, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
                heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                h_BSD = x_BSD + self.out(heads.transpose(1, 2).reshape(B, S, D))
                y_BSD, _ = self.ffn[0](F.rms_norm(h_BSD, (D,)))
                return h_BSD + y_BSD, None
    """,
}

HONEST = """
import torch
def upcycle(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    return tuple(torch.stack([w] * num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))
"""

FORGED = """
import importlib, random, sys, torch
import graders.probes as probes
from graders.probes import lm, modern
from moe_course.grading.exercises.protocol import Outcome, plain
from moe_course.grading.worker import pristine, serve, wire

def call(namespace, name, /, *args, **kwargs):
    copies = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
    value = namespace[name](*copies, **kwargs)
    return Outcome(value=tuple(plain(part.to(args[0].dtype)) for part in value), inputs=plain(args))

def upcycle_then_write(namespace, dense, num_experts, expert, number=0.0):
    own = [w.clone() for w in namespace["upcycle"](*[w.clone() for w in dense], num_experts)]
    for w in own:
        w[expert] = number
    return Outcome(value=(plain(tuple(own)), plain(tuple(dense))))

def draws(namespace, logits_V, temperature, top_p, seed, count, global_seed=0):
    torch.manual_seed(seed)
    tokens = [namespace["sample_next"](logits_V, temperature, top_p, None) for _ in range(count)]
    torch.manual_seed(global_seed)
    random.seed(global_seed)
    numbers = [torch.rand(4).tolist(), [random.random() for _ in range(4)]]
    return Outcome(value=(plain(tokens), numbers, plain(logits_V)))

def _run(block, ffn, x):
    ffn.given = []
    y = block(x)[0]
    total = float(ffn.given[-1].double().sum())
    return {"y": y, "given": ffn.given, "total": total, "pair": True, "kind": "_Answer", "after": x.clone()}

FORGERIES = {(probes, "call"): call, (modern, "upcycle_then_write"): upcycle_then_write,
             (lm, "draws"): draws, (lm, "_run"): _run}
BY_NAME = {f"{module.__name__}:{name}": forged for (module, name), forged in FORGERIES.items()}

def replace_codes():
    for (module, name), forged in FORGERIES.items():
        real = getattr(module, name)
        real.__globals__.update(Outcome=Outcome, plain=plain, random=random, torch=torch)
        real.__code__, real.__defaults__ = forged.__code__, forged.__defaults__
"""

ATTACKS = {
    "functions": """
        for (module, name), forged in FORGERIES.items():
            setattr(module, name, forged)
    """,
    "code": "replace_codes()",
    "modules": """
        import types
        for (module, name), forged in FORGERIES.items():
            copy = types.ModuleType(module.__name__)
            vars(copy).update(vars(module), **{name: forged})
            sys.modules[module.__name__] = copy
    """,
    "modules_that_forget": """
        import types
        class Deaf(types.ModuleType):
            def __setattr__(self, name, value): pass
            def __delattr__(self, name): pass
        for module in (probes, modern, lm, pristine, serve):
            module.__class__ = Deaf
        replace_codes()
    """,
    "memory": """
        pristine._world[:] = [(), ()]
        replace_codes()
    """,
    "restoring": """
        for name in ("restore", "release"):
            getattr(pristine, name).__code__ = (lambda *args: None).__code__
            setattr(pristine, name, lambda *args: None)
            setattr(serve, name, lambda *args: None)
        pristine.intact.__code__ = (lambda memory: True).__code__
        pristine.theirs.__code__ = (lambda function, /, *args, **kwargs: function(*args, **kwargs)).__code__
        replace_codes()
    """,
    "worker": """
        real = wire.read_frame
        def read_frame(stream, *largest):
            message = real(stream, *largest)
            def answer(number, probe, namespace, args, kwargs, largest):
                value = BY_NAME[message["probe"]](namespace, *args, **kwargs)
                return wire.encode({"number": number, "value": value})
            serve.answer = answer
            return message
        serve.read_frame = wire.read_frame = read_frame
        serve.restore = serve.release = lambda *args: None
        serve.intact = lambda memory: True
    """,
    "garbage_collector": """
        import gc
        for thing in gc.get_objects():
            if type(thing) is dict and thing is not BY_NAME and "graders.probes:call" in thing:
                thing.update(BY_NAME)
            if type(thing) is type(call) and thing.__module__ == pristine.__name__:
                if thing.__name__ in ("restore", "release"):
                    thing.__code__ = (lambda *args: None).__code__
            if type(thing) is list and thing and type(thing[0]) is tuple and len(thing) == 2:
                if thing is pristine._world:
                    thing.clear()
        replace_codes()
    """,
    "closures": """
        for owner in (lm._Sine, lm._Bigram, lm._Mixing):
            for function in vars(owner).values():
                for cell in getattr(function, "__closure__", None) or ():
                    inner = cell.cell_contents
                    cell.cell_contents = lambda *args, inner=inner: (inner(*args)[0], lm._Answer(0.0))
        replace_codes()
    """,
    "from_within": """
        def rewrite(frame):
            while frame:
                for name in ("plain", "Outcome", "theirs", "answer", "encode"):
                    if str(frame.f_globals.get("__name__")).startswith(("graders", "moe_course")):
                        frame.f_globals[name] = lambda *args, **kwargs: None
                frame = frame.f_back
            replace_codes()
        for name in ("upcycle", "sample_next"):
            if name in globals():
                honest = globals()[name]
                globals()[name] = lambda *args, honest=honest: (rewrite(sys._getframe()), honest(*args))[1]
    """,
    "mode_of_torch": """
        from torch.overrides import TorchFunctionMode
        class Mode(TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None):
                if getattr(function, "__name__", "") in ("fill_", "zero_", "manual_seed"):
                    return args[0]
                return function(*args, **(kwargs or {}))
        Mode().__enter__()
    """,
    "mode_of_dispatch": """
        from torch.utils._python_dispatch import TorchDispatchMode
        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                if function.overloadpacket is torch.ops.aten.fill_:
                    return args[0]
                return function(*args, **(kwargs or {}))
        Mode().__enter__()
    """,
    "torch": """
        clone = torch.Tensor.clone
        torch.Tensor.fill_ = lambda self, number: self
        torch.Tensor.zero_ = lambda self: self
        torch.Tensor.data_ptr = lambda self: id(self)
        torch.Tensor._version = 0
        torch.Tensor.detach = torch.Tensor.cpu = lambda self: self
        torch.Tensor.clone = lambda self, **options: clone(self).contiguous()
        torch.Tensor.dtype = torch.float64
        torch.manual_seed = torch.random.manual_seed = lambda seed: None
        torch.rand = lambda *sizes: torch.zeros(*sizes)
        torch.random.fork_rng = lambda **options: __import__("contextlib").nullcontext()
        torch.no_grad.__enter__ = lambda self: None
    """,
    "python": """
        import builtins, random
        builtins.id = lambda thing: 0
        builtins.isinstance = lambda thing, kind: True
        builtins.type = lambda *args: torch.Tensor
        builtins.tuple = lambda things: [thing.clone() for thing in things]
        random.random = lambda: 0.0
        random.seed = random.setstate = lambda state: None
    """,
    "what_comes_back": """
        class Sly(tuple):
            @property
            def __class__(self):
                replace_codes()
                probes.plain = modern.plain = lambda value: None
                return tuple
        if "upcycle" in globals():
            faulty = upcycle
            upcycle = lambda *args: Sly(faulty(*args))
    """,
    "thread": """
        import threading, time
        def again_and_again():
            while True:
                replace_codes()
                time.sleep(0)
        threading.Thread(target=again_and_again, daemon=True).start()
    """,
}
FEW = ("functions", "code", "restoring", "mode_of_torch", "torch")  # on the exercises that take long to judge


def cells(exercise, attack=""):
    source = FORGED + textwrap.dedent(ATTACKS[attack]) if attack else "pass"
    return [textwrap.dedent(FAULTY[exercise]), source]


def graded(exercise, sources):
    """The score, and the errors of the cells: an attack that stops at an error proves nothing."""
    masked = masked_modules(EXERCISES[exercise].notebook)
    with WorkerSubject(sources, SMALL, masked) as worker:
        score = grade(exercise, worker, SEED).score
        return score, [error for error in worker.cell_errors if error]


@pytest.fixture(scope="module")
def without(needs_sandbox):
    """The points of each faulty answer alone, by exercise."""
    scores = {}

    def score(exercise):
        if exercise not in scores:
            scores[exercise], errors = graded(exercise, cells(exercise))
            assert not errors
        return scores[exercise]

    return score


class Believing(LiveSubject):
    """A judge's partner that lets the forged probes measure."""

    def run(self, probe, *args, **kwargs):
        forged = self.namespace["BY_NAME"].get(f"{probe.__module__}:{probe.__name__}", probe)
        forged.__annotations__ = {}
        return super().run(forged, *args, **kwargs)


@pytest.mark.parametrize("exercise", ["upcycle", "sample_next"])
def test_the_forged_probes_would_win(exercise):
    """Else the attacks below were harmless by themselves."""
    namespace = {}
    for source in (textwrap.dedent(FAULTY[exercise]), FORGED):
        exec(source, namespace)
    honest = grade(exercise, LiveSubject(namespace), SEED).score
    with torch.random.fork_rng():
        believed = grade(exercise, Believing(namespace), SEED).score
    assert honest < believed == points(exercise)


@pytest.mark.parametrize(
    ("exercise", "attack"),
    [
        *(("upcycle", name) for name in ATTACKS),
        *((exercise, name) for exercise in ("sample_next", "TransformerBlock") for name in FEW),
        ("TransformerBlock", "closures"),
    ],
)
def test_who_rewrites_the_probes_gets_no_more(without, exercise, attack):
    score, errors = graded(exercise, cells(exercise, attack))
    assert not errors
    assert score <= without(exercise) < points(exercise)


def test_neighbours_of_attackers_have_full_marks(without):
    """While the attackers' processes still run, and in one forked after them from the same process."""
    masked = masked_modules("06_modern_moe")
    with WorkerSubject(cells("upcycle", "thread"), SMALL, masked) as busy:
        busy.start()
        with WorkerSubject(cells("upcycle", "restoring"), SMALL, masked) as quiet:
            grade("upcycle", quiet, SEED)
            score, errors = graded("upcycle", [HONEST])
            assert (score, errors) == (points("upcycle"), [])
