"""Notebooks damaged at random, as no list of known damages would think of."""

import copy
import json


def mutilated(rng, notebook):
    """The bytes of a notebook of the course after up to eight damages."""
    original, notebook = notebook, json.loads(json.dumps(notebook))
    damages = [_delete, _duplicate, _move, _shuffle, _strip, _change_id, _change_type, _edit_text, _edit_json]
    for damage in rng.choices(damages, k=rng.randint(1, 8)):
        if cells := notebook.get("cells"):
            damage(rng, cells, notebook, original)
        if not isinstance(notebook.get("cells"), list):
            break
    data = bytearray(json.dumps(notebook).encode())
    if rng.random() < 0.15:
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.03:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def marked(notebook):
    """The grade_id of every cell that nbgrader knows."""
    return [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]


def _delete(rng, cells, *_):
    for _ in range(rng.choice([1, 3, 30])):
        if cells:
            cells.pop(rng.randrange(len(cells)))


def _duplicate(rng, cells, *_):
    for _ in range(rng.randint(1, 6)):
        cells.insert(rng.randrange(len(cells) + 1), copy.deepcopy(rng.choice(cells)))


def _move(rng, cells, *_):
    cells.insert(rng.randrange(len(cells)), cells.pop(rng.randrange(len(cells))))


def _shuffle(rng, cells, *_):
    rng.shuffle(cells)


def _some(rng, cells):
    share = rng.choice([0.05, 0.5, 1.0])
    return [cell for cell in cells if isinstance(cell, dict) and rng.random() < share]


def _strip(rng, cells, *_):
    field = rng.choice(["metadata", "id", "source", "outputs", "cell_type"])
    for cell in _some(rng, cells):
        cell.pop(field, None)


def _change_id(rng, cells, _, original):
    for cell in _some(rng, cells):
        new = rng.choice([*marked(original), "s1-why", "setup", "not valid!", "", "x" * 90, "new"])
        if rng.random() < 0.5 and isinstance(marks := cell.get("metadata"), dict):
            marks["nbgrader"] = {"grade_id": new, "grade": rng.random() < 0.5, "solution": rng.random() < 0.5}
        else:
            cell["id"] = new


def _change_type(rng, cells, *_):
    for cell in _some(rng, cells):
        cell["cell_type"] = rng.choice(["code", "markdown", "raw", "heading", "widget", None])


def _edit_text(rng, cells, _, original):
    names = [*(key for key in marked(original) if not key.startswith("check_")), "helper"]
    texts = [c.source for c in original.cells if c.id in ("setup", "title") or "nbgrader" in c.metadata]
    for cell in _some(rng, cells):
        name = rng.choice(names)
        cell["source"] = rng.choice(
            [
                f"def {name}(x):\n    return {rng.random()}",
                f"def {name}(x):\n    return 1\n\ndef {rng.choice(names)}(x):\n    return 2",
                f"{name} = lambda x: x",
                f"def {name}(x:",
                f"```python\ndef {name}(x):\n    return 3\n```",
                f"check({name})\nscore = 10",
                rng.choice(texts),
                str(cell.get("source"))[rng.randrange(40) :],
                ["def ", name, "(): pass", None],
                "  ",
            ]
        )


def _edit_json(rng, _, notebook, *__):
    """Replace a random value anywhere in the file, or rename a key."""
    node = notebook
    for _ in range(rng.randint(0, 6)):
        inner = list(node.values()) if isinstance(node, dict) else node
        inner = [value for value in inner if isinstance(value, dict | list) and value]
        if inner:
            node = rng.choice(inner)
    at = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    node[at] = rng.choice([None, True, -1, 1e400, "", "text", [], {}, [[]], {"a": {}}, "\ud800", 10**30])
