"""Right answers to exercises of notebooks 01 and 02, in the many ways in which people write notebooks.

Each style is one exercise: the cells that the learner added above it, and the text of its solution cell. Live, all of
them earn what the check can give; in grading they must earn full marks.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """exercise; answer: the solution cell; above: cells before it; settings: it changes what other cells meet."""

    exercise: str
    answer: str
    above: tuple[str, ...] = ()
    settings: bool = False


STYLES: dict[str, Style] = {}


def style(name, exercise, answer, *above, settings=False):
    assert name not in STYLES, name
    texts = [textwrap.dedent(text).strip("\n") for text in (answer, *above)]
    STYLES[name] = Style(exercise, texts[0], tuple(texts[1:]), settings)


PARAMS = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n"
FLOPS = "def ffn_flops(num_tokens, d_model, d_ff):\n    return 6 * num_tokens * d_model * d_ff\n"
WIDTH = """
def active_matched_d_ff(d_ff_dense, top_k, num_shared=0):
    if d_ff_dense < 1 or top_k < 1 or num_shared < 0 or d_ff_dense % (top_k + num_shared):
        raise ValueError("no such width")
    return d_ff_dense // (top_k + num_shared)
"""
SWIGLU = """
def swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD):
    return (F.silu(x_TD @ w_gate_DF) * (x_TD @ w_up_DF)) @ w_down_FD
"""
MOE = """
def moe_ffn_params(d_model, d_ff, num_experts, top_k, num_shared=0):
    if min(d_model, d_ff, num_experts) < 1 or num_shared < 0 or not 1 <= top_k <= num_experts:
        raise ValueError("no such layer")
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert
"""
MODEL = """
def model_params(config):
    d, heads, kv_heads = config.d_model, config.num_heads, config.num_kv_heads
    norms = {"none": 0, "head": 2, "full": heads + kv_heads}[config.qk_norm] * config.head_dim
    common = config.vocab_size * d * (1 if config.tied_embeddings else 2) + d
    common += config.num_layers * (2 * d * (heads + kv_heads) * config.head_dim + norms + 2 * d)
    common += config.num_dense_layers * 3 * d * config.d_ff_dense
    layers, expert = config.num_layers - config.num_dense_layers, 3 * d * config.d_ff_expert
    common += layers * (d * config.num_experts + config.num_shared * 3 * d * config.d_ff_shared)
    return common + layers * config.num_experts * expert, common + layers * config.top_k * expert
"""
PROBS = "def router_probs(x_TD, w_DE):\n    return (x_TD.float() @ w_DE.float()).softmax(-1)\n"
SPARSE = """
def sparse_gates(logits_TE, k):
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.full_like(logits_TE, float("-inf")).scatter(-1, idx_TK, top_TK).softmax(-1)
"""
NOISY = """
def noisy_logits(x_TD, w_gate_DE, w_noise_DE, noise_TE, training):
    clean = x_TD @ w_gate_DE
    return clean + noise_TE * F.softplus(x_TD @ w_noise_DE) if training else clean
"""
SWITCH = """
def switch_gate(logits_TE):
    weight_T, idx_T = torch.softmax(logits_TE.float(), dim=-1).max(dim=-1)
    return weight_T.to(logits_TE.dtype), idx_T
"""

# ------------------------------------------------------------------------------------------------- magics and shell

style("time", "moe_ffn_params", "%%time\n" + MOE)
style("capture", "model_params", "%%capture out\n" + MODEL + "print('said')", "# nothing yet")
style("prun", "active_matched_d_ff", "%%prun -q" + WIDTH)
style("time_in_capture", "swiglu_ffn", "%%capture\n%%time" + SWIGLU)
style(
    "line_magics",
    "moe_ffn_params",
    "%matplotlib inline\n%load_ext autoreload\n%autoreload 2\n%precision 3\n" + MOE,
)
style(
    "timeit_keeps_its_result",
    "ffn_flops",
    FLOPS + "result = %timeit -o -n1 -r1 ffn_flops(1, 2, 3)\nresult.best",
)
style(
    "a_timed_cell_above",
    "moe_ffn_params",
    MOE,
    "%%timeit -n1 -r1\nsum(range(10))",
    "%time total = 3\ntotal + 1",
)
style("time_of_a_statement", "ffn_flops", FLOPS + "%time assert ffn_flops(1, 2, 3) == 36")
style(
    "shell_output",
    "ffn_params",
    """
    files = !ls
    here = %pwd
    n = !echo 3
    def ffn_params(d_model, d_ff):
        return int(n[0]) * d_model * d_ff if isinstance(files.n, str) else 0
    """,
)
style("pip", "moe_ffn_params", "!pip install einops\n%pip install -q einops\n" + MOE)
style("bash", "active_matched_d_ff", WIDTH, "%%bash\necho three > three.txt", "!cat three.txt\n%ls")
style(
    "writefile",
    "model_params",
    MODEL,
    "%%writefile helper_file.py\nTHREE = 3",
    "%env LIMIT=3\n%who\n%xmode Minimal",
)
style("question_mark", "model_params", MODEL + "model_params?")
style(
    "get_ipython",
    "model_params",
    'from IPython import get_ipython\nget_ipython().run_line_magic("matplotlib", "inline")\n' + MODEL,
)
style("magic_by_name", "active_matched_d_ff", "get_ipython().run_cell_magic('time', '', '''" + WIDTH + "''')")

# ------------------------------------------------------------------------------------------- what a kernel provides

style("display", "moe_ffn_params", 'display("my answer", {"matrices": 3})\n' + MOE)
style(
    "display_html",
    "model_params",
    "from IPython.display import HTML, Markdown\ndisplay(HTML('<b>6</b>'))\n" + MODEL,
)
style(
    "in_and_out",
    "ffn_params",
    "def ffn_params(d_model, d_ff):\n    return matrices * d_model * d_ff",
    "1 + 2",
    "matrices = Out[max(Out)]\nassert In[-1] and isinstance(Out, dict) and _i",
)
style(
    "top_level_await",
    "ffn_flops",
    "import asyncio\nfactor = await six()\ndef ffn_flops(num_tokens, d_model, d_ff):"
    "\n    return factor * num_tokens * d_model * d_ff",
    "async def six():\n    return 6",
)
style("main_guard", "moe_ffn_params", 'if __name__ == "__main__":\n' + textwrap.indent(MOE, "    "))
style(
    "own_module",
    "active_matched_d_ff",
    WIDTH + "import sys\nassert sys.modules[__name__].active_matched_d_ff is active_matched_d_ff\n"
    "del sys.modules['__main__'].sys",
)
style(
    "inspected",
    "model_params",
    MODEL + "import inspect\nassert 'config' in inspect.getsource(model_params)",
)
style("asked", "model_params", "who = 'me'\n" + MODEL, "def ask():\n    return input('Your name? ')")
style("exit_below", "moe_ffn_params", MOE, "def leave():\n    exit()")
style(
    "figure",
    "swiglu_ffn",
    SWIGLU + "\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.title('mine')\nplt.show()",
    "fig, axes = plt.subplots(2) if 'plt' in globals() else (None, None)\nfig",
)

# ------------------------------------------------------------------------------------------- ways to make a function

style("a_lambda", "ffn_params", "ffn_params = lambda d_model, d_ff: 3 * d_model * d_ff")
style(
    "partial",
    "ffn_flops",
    "import functools\nffn_flops = functools.partial(scaled, 6)",
    "def scaled(factor, num_tokens, d_model, d_ff):\n    return factor * num_tokens * d_model * d_ff",
)
style("cached", "moe_ffn_params", "from functools import lru_cache\n@lru_cache(maxsize=None)\n" + MOE)
style(
    "decorated",
    "model_params",
    "@logged\n" + MODEL,
    """
    import functools
    def logged(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            print(function.__name__, args)
            return function(*args, **kwargs)
        return inner
    """,
)
style(
    "callable_object",
    "ffn_params",
    "class Count:\n    def __call__(self, d_model, d_ff):\n"
    "        return 3 * d_model * d_ff\nffn_params = Count()",
)
style(
    "closure",
    "ffn_flops",
    "def times(factor):\n    def inner(num_tokens, d_model, d_ff):\n"
    "        return factor * num_tokens * d_model * d_ff\n    return inner\nffn_flops = times(6)",
)
style("defined_twice", "ffn_params", "def ffn_params(d_model, d_ff):\n    return 0\n\n" + PARAMS)
style("executed_text", "swiglu_ffn", "exec(TEXT)\nswiglu_ffn = swiglu_ffn", f"TEXT = {SWIGLU!r}")
style("evaluated", "ffn_params", "ffn_params = eval('lambda d_model, d_ff: 3 * d_model * d_ff')")
style(
    "static_method",
    "ffn_flops",
    """
    class Costs:
        MATRICES = 3
        @staticmethod
        def flops(num_tokens, d_model, d_ff):
            return 2 * Costs.MATRICES * num_tokens * d_model * d_ff
    ffn_flops = Costs.flops
    """,
)
style(
    "method_of_an_object",
    "ffn_params",
    "class Layer:\n    def size(self, d_model, d_ff):\n"
    "        return 3 * d_model * d_ff\nffn_params = Layer().size",
)
style(
    "keyword_arguments",
    "ffn_flops",
    "def ffn_flops(*args, **sizes):\n    import math\n"
    "    return 6 * math.prod(args) * math.prod(sizes.values())",
)
style("compiled", "swiglu_ffn", "@torch.compile" + SWIGLU)
style("compiled_with_options", "swiglu_ffn", SWIGLU + "swiglu_ffn = torch.compile(swiglu_ffn, dynamic=True)")
style(
    "module_called",
    "swiglu_ffn",
    """
    class SwiGLU(torch.nn.Module):
        def forward(self, x, gate, up, down):
            return (F.silu(x @ gate) * (x @ up)) @ down
    swiglu_ffn = SwiGLU()
    """,
)

# -------------------------------------------------------------------------------------------------- Python's corners

style(
    "dataclass",
    "moe_ffn_params",
    MOE.replace(
        "router, expert = d_model * num_experts, 3 * d_model * d_ff",
        "sizes = Sizes(d_model, d_ff, num_experts)\n    router, expert = sizes.router, sizes.expert",
    ),
    """
    from __future__ import annotations
    from dataclasses import dataclass, field
    @dataclass(frozen=True, slots=True)
    class Sizes:
        d_model: int
        d_ff: int
        num_experts: int
        notes: list[str] = field(default_factory=list)
        @property
        def router(self) -> int: return self.d_model * self.num_experts
        @property
        def expert(self) -> int: return 3 * self.d_model * self.d_ff
    import copy, pickle
    assert pickle.loads(pickle.dumps(Sizes(1, 2, 3))) == copy.deepcopy(Sizes(1, 2, 3))
    """,
)
style(
    "enum_and_match",
    "ffn_params",
    """
    import enum
    class Kind(enum.Enum):
        SWIGLU = "swiglu"
        PLAIN = "plain"
    def ffn_params(d_model, d_ff, kind=Kind.SWIGLU):
        match kind:
            case Kind.SWIGLU: return 3 * d_model * d_ff
            case _: return 2 * d_model * d_ff
    """,
)
style(
    "typing",
    "ffn_flops",
    """
    from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar
    T = TypeVar("T")
    Size: TypeAlias = int
    class Box(Generic[T]):
        def __init__(self, held: T): self.held = held
    class Shape(NamedTuple):
        d_model: Size
        d_ff: Size
    def ffn_flops(num_tokens: Size, d_model: Size, d_ff: Size) -> Size:
        shape = Box[Shape](Shape(d_model, d_ff)).held
        return 6 * num_tokens * shape.d_model * shape.d_ff
    """,
)
style(
    "context_manager",
    "active_matched_d_ff",
    WIDTH.replace("    return d_ff", "    with nothing() as one:\n        return one * d_ff"),
    "from contextlib import contextmanager\n@contextmanager\ndef nothing():\n    yield 1",
)
style(
    "generator",
    "ffn_params",
    "def ffn_params(d_model, d_ff):\n    def each():\n        for _ in range(3):\n"
    "            yield d_model * d_ff\n    return sum(each())",
)
style(
    "globals_written",
    "ffn_flops",
    "calls = 0\ndef ffn_flops(num_tokens, d_model, d_ff):\n    global calls\n"
    "    calls += 1\n    return 6 * num_tokens * d_model * d_ff",
)
style(
    "async_helper",
    "ffn_params",
    "import asyncio\nasync def product(*numbers):\n    import math\n"
    "    return math.prod(numbers)\ndef ffn_params(d_model, d_ff):\n    coroutine = product(3, d_model, d_ff)\n"
    "    try:\n        coroutine.send(None)\n    except StopIteration as done:\n"
    "        return done.value",
)
style(
    "unicode",
    "ffn_flops",
    "π = 3\nBreite = 'größer'\ndef ffn_flops(num_tokens, d_model, d_ff):  # Größe, 大きさ\n"
    "    número = 2 * π\n    return número * num_tokens * d_model * d_ff",
)
style(
    "tabs_and_semicolons",
    "ffn_params",
    "def ffn_params(d_model, d_ff):\n\ta = d_model; b = d_ff\n\n\n\treturn \\\n\t\t3 * a * b ;",
)
style(
    "star_imports",
    "ffn_flops",
    "from math import *\nfrom torch import *\ndef ffn_flops(num_tokens, d_model, d_ff):"
    "\n    import math\n    return math.prod([6, num_tokens, d_model, d_ff])",
)
style(
    "very_long", "ffn_params", "\n".join(f"x{n} = {n}  # {'note ' * 12}" for n in range(1500)) + "\n" + PARAMS
)
style(
    "prints_by_the_thousand",
    "swiglu_ffn",
    SWIGLU.replace("    return", "    for n in range(2000): print(n)\n    return"),
)
style("recursion", "active_matched_d_ff", WIDTH + "def depth(n): return n and depth(n - 1)\ndepth(500)")
style(
    "numpy",
    "ffn_params",
    "import numpy as np\ndef ffn_params(d_model, d_ff):\n"
    "    return int(np.prod([3, d_model, d_ff], dtype=object))",
)
style(
    "walrus_and_chained",
    "ffn_flops",
    "def ffn_flops(num_tokens, d_model, d_ff):\n"
    "    return (size := d_model * d_ff) and 6 * num_tokens * size",
)
style(
    "warnings_told",
    "active_matched_d_ff",
    "import warnings\n" + WIDTH.replace("    return", "    warnings.warn('is this right?')\n    return"),
)
style(
    "doctest",
    "ffn_params",
    'def ffn_params(d_model, d_ff):\n    """\n    >>> ffn_params(2, 3)\n    18\n    """\n'
    "    return 3 * d_model * d_ff\nimport doctest\ndoctest.testmod()",
)
style(
    "threads",
    "ffn_flops",
    "from concurrent.futures import ThreadPoolExecutor\n"
    + FLOPS.replace("ffn_flops", "_f")
    + "def ffn_flops(*sizes):\n    with ThreadPoolExecutor(2) as pool:\n"
    "        return pool.submit(_f, *sizes).result()",
)

# ------------------------------------------------------------------------------------- errors that cost nothing live

style(
    "helper_below_a_demonstration",
    "ffn_params",
    "def ffn_params(d_model, d_ff):\n    return 3 * area(d_model, d_ff)",
    "x_TD = torch.ones(2, 3)\nprint(x_TD.shape)\n\ndef area(a, b):\n    return a * b",
)
style(
    "old_code_below_a_stop",
    "model_params",
    MODEL,
    "def helper(): return 6",
    "raise KeyboardInterrupt\ndef helper(): return 0",
)
style("an_error_at_the_end", "active_matched_d_ff", WIDTH + "active_matched_d_ff(7, 2)")
style("closed_output", "model_params", MODEL, "import io, sys\nsys.stdout = io.StringIO()\nprint('kept')")

# --------------------------------------------------------------------------------------------- settings left behind

style("no_gradients", "router_probs", PROBS, "torch.set_grad_enabled(False);", settings=True)
style("float64_by_default", "sparse_gates", SPARSE, "torch.set_default_dtype(torch.float64)", settings=True)
style("meta_by_default", "noisy_logits", NOISY, "torch.set_default_device('meta')", settings=True)
style(
    "warnings_are_errors",
    "switch_gate",
    SWITCH,
    "import warnings\nwarnings.simplefilter('error')",
    settings=True,
)
style(
    "moved_and_seeded",
    "swiglu_ffn",
    SWIGLU,
    "import os, sys, random, numpy as np\nos.chdir('/')\nsys.path.insert(0, '/nowhere')",
    "random.seed(1); np.random.seed(1); torch.manual_seed(1)\nnp.seterr(all='raise')",
    "torch.set_num_threads(1)\ntorch.use_deterministic_algorithms(True)\nsys.setrecursionlimit(900)",
    "import builtins\n_print = builtins.print\ndef print(*args, **kwargs):\n    _print('mine:', *args)",
    settings=True,
)
