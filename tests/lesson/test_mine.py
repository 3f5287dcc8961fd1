"""`mine()`: the learner's parts where they have passed, the library's for the rest, and one layer out of both."""

import functools
import linecache
import math
import textwrap
from dataclasses import replace

import pytest
import torch
from synthetic import code, write

from moe_course import moe
from moe_course.grading.exercises.protocol import ForbiddenImport
from moe_course.grading.judge import live
from moe_course.lesson import assemble, checking, mine, parts, tiny
from moe_course.moe import MoEConfig, MoELayer

# The learner's code, in another style than the library's. Each marks its calls, so that a test sees who worked.
OWN = {
    "top_k_gate": """
        def top_k_gate(probs_TE: Tensor, k: int, renormalize: bool = True):
            calls.append("top_k_gate")
            weights_TK, idx_TK = torch.topk(probs_TE, k)
            if renormalize:
                weights_TK = weights_TK / weights_TK.sum(1, keepdim=True)
            return weights_TK, idx_TK
    """,
    "plan_dispatch": """
        def plan_dispatch(idx_TK, num_experts):
            calls.append("plan_dispatch")
            return idx_TK.flatten().argsort(stable=True), torch.bincount(idx_TK.flatten(), minlength=num_experts)
    """,
    "combine": """
        def combine(y_ND, order_N, weights_TK):
            calls.append("combine")
            K = weights_TK.shape[1]
            y_TD = torch.zeros(len(weights_TK), y_ND.shape[1], dtype=y_ND.dtype)
            return y_TD.index_add(0, order_N // K, weights_TK.flatten()[order_N, None] * y_ND)
    """,
    "load_balancing_loss": """
        def load_balancing_loss(probs_TE, idx_TK, mask_T=None):
            calls.append("load_balancing_loss")
            if mask_T is not None:
                probs_TE, idx_TK = probs_TE[mask_T], idx_TK[mask_T]
            E = probs_TE.shape[1]
            return E * (F.one_hot(idx_TK, E).float().mean((0, 1)) * probs_TE.mean(0)).sum()
    """,
    "expert_capacity": """
        def expert_capacity(num_tokens, num_experts, top_k, factor):
            calls.append("expert_capacity")
            return math.ceil(num_tokens * top_k * factor / num_experts)
    """,
}
OWN = {name: textwrap.dedent(source) for name, source in OWN.items()}
D, F, E, K = 8, 12, 6, 2


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A work folder, with the learner in one of its notebooks, and a session in which nothing has passed."""
    (tmp_path / "work" / ".moe-course").mkdir(parents=True)
    (tmp_path / "work" / "03_dispatch").mkdir()
    monkeypatch.chdir(tmp_path / "work" / "03_dispatch")
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.setattr(checking, "passed", {})
    monkeypatch.setattr(checking, "code", {})
    return tmp_path / "work"


@pytest.fixture
def calls(work, monkeypatch):
    """Keep the learner's parts; afterwards, who was called."""
    calls = []
    monkeypatch.setattr(parts, "_stage", lambda stage=parts._stage: {**stage(), "calls": calls})
    for name, source in OWN.items():
        parts.keep(name, parts.collected({name: source}, {}, set(OWN)))
    return calls


def config(**options):
    return MoEConfig(d_model=D, d_ff=F, num_experts=E, top_k=K, **options)


def inputs(seed=0):
    return torch.randn(3, 7, D, generator=torch.Generator().manual_seed(seed))


def test_without_a_workspace_everything_is_the_librarys(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "passed", {})
    m = mine()
    assert "Yours: none yet." in capsys.readouterr().out
    for name in assemble.LAYER_PARTS:
        assert getattr(m, name) is getattr(moe, name)
    assert list(tmp_path.iterdir()) == []


def test_kept_parts_are_used_and_named(calls, capsys):
    m = mine()
    yours, theirs = " ".join(capsys.readouterr().out.split()).split(". ", maxsplit=1)
    assert all(name in yours for name in OWN)
    assert not any(f"{name}," in f"{theirs}," for name in OWN)
    assert "fill_buffers" in theirs
    for name in OWN:
        assert getattr(m, name).__name__ == name
        assert getattr(m, name) is not getattr(moe, name)
    assert m.fill_buffers is moe.fill_buffers

    weights_TK, idx_TK = m.gate(torch.tensor([[1.0, 2.0, 0.0]]), 2)
    assert idx_TK.tolist() == [[1, 0]]
    assert weights_TK[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert calls == ["top_k_gate"]


def test_moe_is_the_loop_by_way_of_the_own_dispatch(calls):
    x_TD = inputs().flatten(0, 1)
    weights_TK, idx_TK = torch.rand(21, E).topk(K)
    experts = moe.init_experts(E, D, F)
    y_TD = mine().moe(x_TD, weights_TK, idx_TK, *experts)
    torch.testing.assert_close(y_TD, moe.moe_loop(x_TD, weights_TK, idx_TK, *experts))
    assert calls == ["plan_dispatch", "combine"]


LAYERS = {
    "as it stands": {},
    "not renormalised": {"renormalize": False},
    "noise": {"noise": True},
    "shared": {"num_shared": 2, "d_ff_shared": 5},
    "DeepSeek-V3": dict(
        router="sigmoid", scale=2.5, bias_rate=0.1, num_groups=3, top_groups=2, num_shared=1, d_ff_shared=4
    ),
    "bias": {"bias_rate": 0.1},
    "choice": {"capacity_factor": 0.7, "fill": "choice"},
    "token": {"capacity_factor": 0.7, "fill": "token"},
    "priority": {"capacity_factor": 0.7, "fill": "priority"},
    "more room than tokens": {"capacity_factor": 50.0},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_layer_equals_the_librarys(calls, options, padded):
    """Output, every statistic and every named gradient, with the same weights under the same names."""
    theirs, ours = MoELayer(config(**options)), mine().layer(config(**options))
    rng = torch.Generator().manual_seed(3)
    state = {name: torch.randn(value.shape, generator=rng) for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    mask_BS = torch.arange(21).view(3, 7) % 4 > 0 if padded else None
    results = []
    for layer in (ours, theirs):
        torch.manual_seed(5)
        y_BSD, stats = layer(inputs(), mask_BS)
        (y_BSD.square().sum() + stats.lb_loss + stats.z_loss).backward()
        gradients = {name: p.grad for name, p in layer.named_parameters()}
        if "bias_rate" in options:
            layer.update_bias(stats.counts_E)
        results.append({"y_BSD": y_BSD, **vars(stats), **gradients, **dict(layer.named_buffers())})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        size = results[1][name].abs().max().item()
        torch.testing.assert_close(
            value, results[1][name], rtol=0, atol=1e-5 * size, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert "plan_dispatch" in calls
    assert "load_balancing_loss" in calls
    assert ("expert_capacity" in calls) == ("capacity_factor" in options)


def test_the_tiny_moe_trains_on_them(calls):
    """The thread's model with own parts does what it does with the library's."""
    m, short = mine(), tiny.TinyConfig(steps=4, num_lines=64)
    own = tiny.train(functools.partial(m.gate, k=2), 0, short, moe=m.moe)
    theirs = tiny.train(lambda logits_TE: moe.top_k_gate(logits_TE.softmax(-1), 2), 0, short)
    assert own.loss == pytest.approx(theirs.loss, rel=1e-4)
    assert {"top_k_gate", "plan_dispatch", "combine"} <= set(calls)


def test_masked_answers_are_only_missed_when_used(monkeypatch):
    """While notebook 02 is graded its answers cannot be imported; a set-up cell may still call mine()."""
    monkeypatch.setattr(assemble.protocol, "CHECKS_DISABLED", True)

    def masked(name):
        raise ForbiddenImport(name)

    monkeypatch.setattr(assemble.importlib, "import_module", masked)
    m = mine()
    with pytest.raises(ForbiddenImport):
        m.top_k_gate  # noqa: B018


def test_what_passed_in_this_session_counts(work, monkeypatch):
    def combine(y_ND, order_N, weights_TK):
        return "mine"

    monkeypatch.setitem(checking.passed, "combine", combine)
    assert mine().combine is combine


def test_what_passed_in_this_session_goes_before_what_was_kept(calls, monkeypatch):
    monkeypatch.setitem(checking.passed, "combine", print)
    assert mine().combine is print


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def combine(y_ND, order_N:\n", "SyntaxError"),
        ("raise OSError('no such thing')\ndef combine(): pass", "OSError: no such thing"),
        ("def combine(y_ND):\n    return helper(y_ND)", "NameError: it uses helper, which was not kept"),
        ("def something_else():\n    pass", "KeyError: 'combine'"),
        ("\x00", "SyntaxError|ValueError"),
    ],
)
def test_a_part_that_no_longer_loads_falls_back(calls, work, capsys, source, error):
    (work / ".moe-course" / "parts" / "combine.py").write_text(source)
    m = mine()
    told = " ".join(capsys.readouterr().out.split())  # without line breaks
    assert m.combine is moe.combine
    assert m.plan_dispatch is not moe.plan_dispatch  # the others stay the learner's
    complaint = told[told.index("Your combine passed") :]
    assert any(name in complaint for name in error.split("|"))


def test_a_part_sees_the_parts_it_uses(work):
    own = "def plan_dispatch(idx_TK, num_experts):\n    return 'own plan'"
    parts.keep("plan_dispatch", own)
    user = "def combine(y, o, w):\n    return plan_dispatch(o, 1), gather_tokens"
    parts.keep("combine", user)
    assert mine().combine(None, None, None) == ("own plan", moe.gather_tokens)


def test_helpers_of_the_notebook_are_kept_along(work):
    """Functions, constants and imports, and what those use in turn; never another exercise."""
    notebook = {"__name__": "__main__"}
    code = """
        import torch.nn.functional as funct
        from math import sqrt as root
        scale = 2.5
        unused = "secret"
        def inner(x):
            return root(x) * scale
        def outer(x):
            return funct.relu(x) + inner(4.0)
        def plan_dispatch(x):
            return "the notebook's"
        def combine(y_ND):
            return [outer(y) for y in y_ND], plan_dispatch
    """
    file = work / "cell.py"  # a file, so that Python can find the source
    file.write_text(textwrap.dedent(code))
    exec(compile(file.read_text(), str(file), "exec"), notebook)
    source = "def combine(y_ND):\n    return [outer(y) for y in y_ND], plan_dispatch"
    parts.keep("combine", parts.collected({"combine": source}, notebook, {"plan_dispatch", "combine"}))
    kept = (work / ".moe-course" / "parts" / "combine.py").read_text()
    assert "secret" not in kept
    assert "def plan_dispatch" not in kept
    values, plan = mine().combine(torch.tensor([-1.0, 3.0]))
    assert [v.item() for v in values] == [5.0, 8.0]
    assert plan is moe.plan_dispatch


def test_check_keeps_what_passed_and_nothing_else(work, monkeypatch):
    """The whole way, through a real check."""
    folder = work / ".moe-course" / "parts"
    cell("def router_probs(x_TD, w_DE):\n    return (x_TD @ w_DE).softmax(1)\ncheck(router_probs)")
    assert not folder.exists()
    right = (
        "def wide(x):\n    return x.float()\n"
        "def router_probs(x_TD, w_DE):\n    return torch.softmax(wide(x_TD) @ wide(w_DE), 1)\ncheck(router_probs)"
    )
    written = cell(right)["router_probs"]
    assert [path.name for path in folder.iterdir()] == ["router_probs.py"]
    assert mine().router_probs is written
    monkeypatch.setattr(checking, "passed", {})  # another day
    monkeypatch.setattr(checking, "code", {})
    again = mine().router_probs
    assert again is not written
    assert again.__module__ == "own_parts"
    torch.testing.assert_close(again(torch.ones(1, 2), torch.zeros(2, 4)), torch.full((1, 4), 0.25))


def test_mine_writes_nothing(calls, work):
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    m = mine()
    m.layer(config())(inputs())
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_while_nbgrader_grades_nothing_is_kept_or_read(calls, work, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    parts.keep("swiglu_ffn", "def swiglu_ffn(): pass")
    assert not (work / ".moe-course" / "parts" / "swiglu_ffn.py").exists()
    assert mine().combine is moe.combine


def test_in_the_grading_worker_it_is_the_library_and_silent(calls, monkeypatch, capsys):
    monkeypatch.setattr(assemble.protocol, "CHECKS_DISABLED", True)
    assert mine().combine is moe.combine
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_written_is_no_error(work):
    (work / ".moe-course" / "parts").write_text("a file in the way")
    parts.keep("combine", OWN["combine"])
    assert mine().combine is moe.combine


def test_a_name_that_is_no_part():
    with pytest.raises(AttributeError, match="'top_gate'"):
        mine().top_gate  # noqa: B018
    assert "top_k_gate" in dir(mine())


def cell(source, **more):
    """Run code as a cell of a notebook; returns its namespace."""
    name = f"<cell {len(linecache.cache)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    namespace = {"torch": torch, "check": checking.check, "mine": mine, "working": checking.working, **more}
    exec(compile(source, name, "exec"), namespace)
    return namespace


def told(capsys):
    return " ".join(capsys.readouterr().out.split())


PROBS = "def router_probs(x_TD, w_DE):\n    return torch.softmax(wide(x_TD) @ wide(w_DE), 1)\n"
WIDE = "def wide(x):\n    return x.float()\n"


@pytest.mark.parametrize("folder", [True, False], ids=["work folder", "elsewhere"])
def test_a_helper_that_changed_since_the_pass_is_not_taken_along(work, tmp_path, monkeypatch, folder):
    """The function in memory calls the new helper now; mine() has what passed."""
    if not folder:
        monkeypatch.chdir(tmp_path)
    book = cell(f"{WIDE}{PROBS}check(router_probs)")
    assert mine().router_probs is book["router_probs"]
    exec("def wide(x):\n    return 0 * x", book)
    again = mine().router_probs
    assert again is not book["router_probs"]
    x_TD, w_DE = torch.randn(3, 2), torch.randn(2, 4)
    torch.testing.assert_close(again(x_TD, w_DE), (x_TD @ w_DE).softmax(1))


def test_an_older_version_is_used_and_said(work, capsys):
    book = cell(f"{WIDE}{PROBS}check(router_probs)\nmine()")
    assert "Yours: router_probs." in told(capsys)
    exec(compile(PROBS.replace("1)", "0)"), "<newer>", "exec"), book)
    newer = PROBS.replace("1)", "0)")
    linecache.cache["<newer>"] = (len(newer), None, newer.splitlines(True), "<newer>")
    exec("m = mine()", book)
    assert "Yours as they last passed, not as your notebook has them now: router_probs." in told(capsys)
    assert book["m"].router_probs is not book["router_probs"]


def test_another_version_in_the_saved_notebook_is_said_too(calls, work, capsys):
    notebook = work / "03_dispatch" / "03_dispatch.ipynb"
    write(notebook, code("answer", "def combine(y_ND, order_N, weights_TK):\n    return 0"))
    mine()
    assert "not as your notebook has them now: combine." in told(capsys)


def test_the_same_code_that_fails_later_is_no_part_any_more(work, monkeypatch):
    book = cell(f"{WIDE}{PROBS}check(router_probs)")
    failing = replace(live.examine(book["router_probs"], namespace=book), status="failed")
    monkeypatch.setattr(live, "examine", lambda *parts, namespace: failing)
    exec("check(router_probs)", book)
    assert mine().router_probs is moe.router_probs
    assert "router_probs" not in checking.passed
    assert [path.name for path in (work / ".moe-course" / "parts").iterdir()] == ["router_probs.failed"]


def test_a_failing_attempt_does_not_displace_what_passed(work):
    book = cell(f"{WIDE}{PROBS}check(router_probs)")
    passed = book["router_probs"]
    cell(f"{WIDE}{PROBS.replace('1)', '0)')}check(router_probs)")
    assert mine().router_probs is passed


def test_parts_of_later_notebooks_are_left_out_and_unused_ones_not_named(calls, capsys):
    parts.keep("moe_loop", "def moe_loop(*args):\n    calls.append('moe_loop')\n    return 0")
    m = mine(through=2)
    assert "Yours: top_k_gate, moe_loop." in told(capsys)
    assert m.plan_dispatch is moe.plan_dispatch
    assert m.moe(*[None] * 6) == 0
    whole = mine(through=3)
    named = told(capsys)
    assert "plan_dispatch" in named
    assert "moe_loop" not in named
    x_TD, (weights_TK, idx_TK) = inputs().flatten(0, 1), torch.rand(21, E).topk(K)
    calls.clear()
    whole.moe(x_TD, weights_TK, idx_TK, *moe.init_experts(E, D, F))
    assert "moe_loop" not in calls


def test_check_says_where_nothing_is_recorded(work, tmp_path, monkeypatch, capsys):
    cell(f"{WIDE}{PROBS}check(router_probs)")
    assert "Not recorded" not in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    cell(f"{WIDE}{PROBS}check(router_probs)")
    assert "Not recorded: this notebook is not in a work folder" in told(capsys)
