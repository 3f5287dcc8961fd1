"""docs/own_model.md: its code runs from top to bottom on classes of others, and gives what stands below it."""

import doctest
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "own_model.md").read_text(encoding="utf-8")


def test_the_page_says_what_its_code_prints():
    pytest.importorskip("transformers")
    names: dict[str, object] = {}
    examples = 0
    for number, fence in enumerate(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)):
        if not fence.startswith(">>>"):
            exec(fence, names)
            continue
        test = doctest.DocTestParser().get_doctest(fence, names, f"fence {number}", "own_model.md", 0)
        runner = doctest.DocTestRunner()
        said: list[str] = []
        runner.run(test, out=said.append, clear_globs=False)
        assert not runner.failures, "".join(said)
        names |= test.globs
        examples += len(test.examples)
    assert examples > 10
