"""Which demonstrations run: those whose values may reach an answer, and no other."""

import json

import pytest
from graders.probes import call

from moe_course.grading.exercises.locate import released
from moe_course.grading.judge.subject import WorkerSubject
from moe_course.grading.submission.attempts import from_notebook, read
from moe_course.grading.submission.demonstrations import needed

# A cell's first letters say what it is: D a demonstration, A an answer, anything else the learner's own.
CASES = {
    "nobody reads": (["D x = 1", "A def f(): return 2"], {}),
    "the answer reads": (["D x = 1", "A def f(): return x"], {0}),
    "only an experiment reads": (["D x = 1", "O print(x)", "A def f(): return 2"], {}),
    "through a helper's value": (["D x = 1", "O print(x)\nn = x + 1", "A def f(): return n"], {0}),
    "the helper itself does not read": (["D x = 1", "O print(x)\ndef g(): return 3", "A def f(): return g()"], {}),
    "through a helper's body": (["D x = 1", "O def g(): return x", "A def f(): return g()"], {0}),
    "through another demonstration": (["D x = 1", "D y = x", "D z = 3", "A def f(): return y"], {0, 1}),
    "the last one before the reader": (["D x = 1", "D x = 2", "O n = x", "D x = 3", "A def f(): return n"], {1}),
    "one that extends it": (["D x = 1", "D x += 2", "O n = x", "A def f(): return n"], {0, 1}),
    "a function reads what is last": (["A def f(): return x", "D x = 1"], {1}),
    "an import": (["D import math", "A def f(): return math.pi"], {0}),
    "a repeated import": (["O import math", "D import math\nmath.pi", "A def f(): return math.pi"], {}),
    "another thing of that name": (["O from math import pi as x", "D from cmath import pi as x", "A x"], {1}),
    "an import that is configured": (["O import torch", "D torch.manual_seed(0)", "A def f(): torch.ones(1)"], {}),
    "filled by item": (["D t = {}", "D t[1] = 2", "O n = t", "A def f(): return n"], {0, 1}),
    "filled in a loop": (["D t = []", "D for i in 'ab':\n    t.append(i)", "A def f(): return t"], {0, 1}),
    "changed only after it was read": (["D t = []", "O n = len(t)", "D t.append(1)", "A def f(): return n"], {0}),
    "a parameter of that name": (["D x = 1", "A def f(x): return x"], {}),
    "a local of that name": (["D x = 1", "A def f():\n    x = 2\n    return x"], {}),
    "a default": (["D x = 1", "A def f(n=x): return n"], {0}),
    "a decorator": (["D def twice(f): return f", "A @twice\ndef f(): return 1"], {0}),
    "a base class": (["D class B: pass", "A class C(B): pass"], {0}),
    "in a class body": (["D x = 1", "A class C:\n    y = x"], {0}),
    "in a comprehension": (["D x = 1", "A f = [x for _ in range(2)]"], {0}),
    "in a lambda": (["D x = 1", "A f = lambda: x"], {0}),
    "in an f-string": (["D x = 1", "A def f(): return f'{x}'"], {0}),
    "an annotation": (["D T = int", "A def f(n: T): return n"], {0}),
    "under a condition": (["D x = 1", "O if x:\n    def g(): return 1", "A def f(): return g()"], {0}),
    "unpacked": (["D x, (y, *z) = 1, (2, 3)", "A def f(): return z"], {0}),
    "targets of with and for": (["D with open('a') as x: 1", "D for y in x: 1", "A def f(): return y"], {0, 1}),
    "an answer's own experiment": (["D x = 1", "A n = x\ndef f(): return n", "D x = 2"], {0}),
    "a walrus": (["D print(x := 1)", "A def f(): return x"], {0}),
    "under a cell magic": (["D %%time\nx = 1", "O %%time\nn = x", "A def f(): return n"], {0}),
    "assigned by a magic": (["D x = %timeit -o 1", "A def f(): return x"], {0}),
    "code that does not parse": (["D x = 1", "O n = x +", "A def f(: return n"], {}),
    "a circle": (["D x = 1", "O def g(): return h()\ndef h(): return g() + x", "A def f(): return g()"], {0}),
    "shadowed by the learner": (["D x = 1", "O x = 2", "A def f(): return x"], {}),
    "deleted": (["D x = 1", "O n = x\ndel x", "A def f(): return n"], {0}),
    "a star import hides nothing": (["D x = 1", "O from math import *", "A def f(): return x"], {0}),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "expected"), CASES.values(), ids=CASES)
def test_the_demonstrations_that_an_answer_needs(cells, expected):
    places = {kind: [n for n, cell in enumerate(cells) if cell[0] == kind] for kind in "AD"}
    found = needed([cell[2:] for cell in cells], places["A"], places["D"])
    assert found == set(expected)


def notebook_01():
    return json.loads(released("01_dense_ffn").read_text(encoding="utf-8"))


def with_own(notebook, *cells):
    """Notebook 01 with an own cell above `ffn_params`, and that exercise answered."""
    at = next(n for n, cell in enumerate(notebook["cells"]) if cell["id"] == "ffn_params")
    notebook["cells"][at]["source"] = "def ffn_params(d_model, d_ff):\n    return area(d_model, d_ff)"
    made = [
        {"cell_type": "code", "metadata": {}, "source": cell, "id": f"own-{n}"}
        for n, cell in enumerate(cells)
    ]
    notebook["cells"][at:at] = made
    return notebook


def run_of(notebook, tmp_path):
    submission = from_notebook(tmp_path, notebook)
    named = {"".join(cell["source"]): cell["id"] for cell in notebook_01()["cells"]}
    return [named.get(source, source) for source in submission.cells]


STUBS = ["swiglu_ffn", "ffn_flops", "moe_ffn_params", "active_matched_d_ff", "model_params"]
ANSWER = "def ffn_params(d_model, d_ff):\n    return area(d_model, d_ff)"


def test_without_a_reader_no_demonstration_runs(tmp_path):
    own = "print(x_TD.shape)\ndef area(a, b): return 3 * a * b"
    assert run_of(with_own(notebook_01(), own), tmp_path) == ["setup", STUBS[0], own, ANSWER, *STUBS[1:]]


def test_what_a_helper_computes_from_runs_in_the_notebooks_order(tmp_path):
    own = "three = len(weights)\ndef area(a, b): return three * a * b"
    ran = run_of(with_own(notebook_01(), own), tmp_path)
    assert ran == ["setup", STUBS[0], "s1-tokens-alone", own, ANSWER, *STUBS[1:]]
    own = "three = w_gate_DF.shape[1]\ndef area(a, b): return three * a * b"
    ran = run_of(with_own(notebook_01(), own), tmp_path)
    assert ran == ["setup", "s1-shapes", STUBS[0], own, ANSWER, *STUBS[1:]]


def without(notebook, *ids):
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["id"] not in ids]
    return notebook


def test_a_deleted_demonstration_runs_where_an_answer_reads_from_it(tmp_path):
    """In the learner's kernel its values were still there; where the learner defines such a name, theirs counts."""
    own = "three = w_gate_DF.shape[1]\ndef area(a, b): return three * a * b"
    kept = run_of(with_own(notebook_01(), own), tmp_path)
    assert run_of(without(with_own(notebook_01(), own), "s1-shapes"), tmp_path) == kept
    unread = "def area(a, b): return 3 * a * b"
    assert "s1-shapes" not in run_of(without(with_own(notebook_01(), unread), "s1-shapes"), tmp_path)
    mine = f"w_gate_DF = torch.ones(2, 3)\n{own}"
    assert "s1-shapes" not in run_of(without(with_own(notebook_01(), mine), "s1-shapes"), tmp_path)


@pytest.mark.parametrize("change", ["{}\n", "# mine\n{}", "\n\n{}  # mine"])
def test_a_demonstration_with_a_comment_is_still_the_course_s(change, tmp_path):
    notebook = with_own(notebook_01(), "def area(a, b): return 3 * a * b")
    cell = next(cell for cell in notebook["cells"] if cell["id"] == "s1-shapes")
    cell["source"] = change.format("".join(cell["source"]))
    assert not any("up_TF" in source for source in run_of(notebook, tmp_path))
    cell["source"] += "\nmine = 1"
    assert any("up_TF" in source for source in run_of(notebook, tmp_path))


def test_a_set_up_cell_without_its_tag_runs(tmp_path):
    notebook = notebook_01()
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    assert "setup" in run_of(notebook, tmp_path)


@pytest.mark.parametrize(
    "metadata", [None, "x", [], {"nbgrader": "x"}, {"nbgrader": None}, {"tags": "setup"}]
)
def test_odd_metadata_keeps_no_cell_from_running(metadata, tmp_path):
    notebook = with_own(notebook_01(), "def area(a, b): return 3 * a * b")
    for cell in notebook["cells"]:
        cell["metadata"] = metadata
    submission = from_notebook(tmp_path, notebook)
    assert "ffn_params" in submission.definitions
    assert ANSWER in submission.cells


def long(kind, size=60_000):
    filler = "\n".join(f"# {n:08}" for n in range(size // 11))
    return {
        "comment": f"{filler}\n\n\n{ANSWER}",
        "docstring": ANSWER.replace("):\n", f'):\n    """{filler}"""\n'),
        "table": f"table = {list(range(size // 6))}\n\n\n{ANSWER}",
    }[kind]


@pytest.mark.parametrize("suffix", [".py", ".ipynb"])
@pytest.mark.parametrize("kind", ["comment", "docstring", "table"])
@pytest.mark.parametrize("size", [60_000, 1_500_000])
def test_long_code_is_read_whole(kind, suffix, size, tmp_path):
    source = long(kind, size)
    assert len(source) > 0.9 * size
    path = tmp_path / f"long{suffix}"
    if suffix == ".ipynb":
        notebook = with_own(notebook_01())
        next(cell for cell in notebook["cells"] if cell["id"] == "ffn_params")["source"] = source
        path.write_text(json.dumps(notebook), encoding="utf-8")
    else:
        path.write_text(source, encoding="utf-8")
    submission = read(path)
    assert "".join(source.split()) in "".join("".join(submission.cells).split())
    assert submission.definitions["ffn_params"].endswith("return area(d_model, d_ff)")
    assert not submission.untouched("ffn_params")


@pytest.mark.parametrize("kind", ["comment", "docstring", "table"])
def test_long_code_reaches_the_worker_whole(kind, tmp_path):
    path = tmp_path / "long.py"
    path.write_text(f"{long(kind)}\n\n\ndef area(a, b):\n    return 3 * a * b\n", encoding="utf-8")
    with WorkerSubject(read(path).cells) as worker:
        assert worker.run(call, "ffn_params", 2, 5).value == 30
