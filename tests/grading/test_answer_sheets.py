"""The library is no answer sheet: whatever of it would answer an exercise is masked while its notebook is graded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import one_in

from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of
from moe_course.grading.worker.sandbox import masked_modules

SEARCH = Path(__file__).with_name("answer_sheets.py")
SEARCHED = NOTEBOOKS[1:]  # 00 counts for nothing


def search(folder, *options):
    """What the search finds, by exercise, in a process of its own and in a folder where nothing matters."""
    run = subprocess.run(
        [sys.executable, SEARCH, *options], cwd=folder, capture_output=True, text=True, timeout=1800
    )
    assert run.returncode == 0, run.stderr
    found = {}
    for line in run.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("notebook", one_in(3, SEARCHED))
def test_no_callable_of_the_library_wins_half_of_the_points(tmp_path, notebook, request):
    names = {exercise.name for exercise in exercises_of(notebook)}
    full = request.config.getoption("--full")
    found = search(tmp_path, *names, *(() if full else ("--without-ranks",)))
    assert not any(found.values()), found
    assert found.keys() == names if full else len(found) > len(names) / 2


def test_without_its_masks_the_search_finds_the_answers(tmp_path):
    """Else the test above could not fail: some of the ways that people have found, each in another manner."""
    found = search(
        tmp_path, "--unmasked", "expert_load", "max_violation", "moe_loop", "quantize_int8", "clip_gradients"
    )
    callables = {name: {where.rpartition(".")[2] for where, *_ in ways} for name, ways in found.items()}
    assert {"expert_load", "_shares", "expert_counts", "routing_counts"} <= callables["expert_load"]
    assert {"max_violation", "violation"} <= callables["max_violation"]
    assert {"moe_loop", "moe_onehot", "fused_experts"} <= callables["moe_loop"]
    assert "quantize_int8" in callables["quantize_int8"]  # of two parts
    assert "clip_gradients" in callables["clip_gradients"]  # on ranks


def test_packages_that_hold_whole_moe_models_are_masked_everywhere():
    assert all("transformers" in masked_modules(notebook) for notebook in NOTEBOOKS)
