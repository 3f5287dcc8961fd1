"""The language model of notebooks 07 and 08, at its small settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moe_course.lesson import home, language
from moe_course.lm.experiment import study, trial
from moe_course.moe.layer import MoELayer


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def work(tmp_path, monkeypatch, cache):
    """A work folder, and the small settings."""
    (tmp_path / home.STATE).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")
    monkeypatch.setenv("MOE_COURSE_CACHE", str(cache))
    language._text.cache_clear()
    yield tmp_path
    language._text.cache_clear()


def test_a_model_is_trained_once_and_kept_with_its_snapshots(work, capsys):
    calls = []

    def layer(config):
        calls.append(config)
        return MoELayer(config)

    first = language.train("moe", layer)
    assert len(calls) == first.model.config.num_layers
    again = language.load_or_train()  # as notebook 08 does
    assert "trained already" in capsys.readouterr().out
    assert len(calls) == first.model.config.num_layers
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    steps, models = zip(*again.snapshots, strict=True)
    assert steps == (20, 40)
    assert not torch.equal(models[0].embedding.weight, models[1].embedding.weight)
    assert torch.equal(models[1].embedding.weight, again.model.embedding.weight)
    assert list((work / home.STATE / "runs").iterdir()) == [work / home.STATE / "runs" / "moe-40"]

    language.train("moe", layer, again=True)
    assert len(calls) == 2 * first.model.config.num_layers


def test_a_run_of_another_text_is_not_taken_for_this_one(work, capsys):
    folder = work / home.STATE / "runs" / "dense-active-40"
    language.train("dense-active")
    result = json.loads((folder / trial.RESULT).read_text())
    (folder / trial.RESULT).write_text(json.dumps(result | {"corpus": "another"}))
    language.train("dense-active")
    said = capsys.readouterr().out
    assert "trained already" not in said
    assert "kept as dense-active-40-before1" in said
    assert trial.read_result(folder)["corpus"] == result["corpus"]
    assert trial.read_result(folder.with_name(f"{folder.name}-before1"))["corpus"] == "another"


def test_a_damaged_run_is_kept_and_does_not_stop_the_next(work, capsys):
    folder = work / home.STATE / "runs" / "dense-active-40"
    language.train("dense-active")
    (folder / trial.RECIPE).unlink()
    language.train("dense-active")
    assert "kept as dense-active-40-before1" in capsys.readouterr().out
    assert (folder / trial.RESULT).exists()
    assert (folder.with_name("dense-active-40-before1") / trial.RESULT).exists()


def test_a_model_of_another_recipe_is_kept_and_notebook_08_trains_its_own(work, monkeypatch, capsys):
    """As after an update of the course that changes the recipe."""
    before = language.train("moe")
    monkeypatch.setattr(language, "_recipe", _with_another_rate(language._recipe))
    assert language.load_or_train().result["recipe"] != before.result["recipe"]
    assert "a small one is trained now" in capsys.readouterr().out
    kept = work / home.STATE / "runs" / "moe-40-before1"
    assert trial.read_result(kept) == json.loads(json.dumps(before.result))


def _with_another_rate(chosen_by):
    def chosen(arm, steps=None):
        recipe = chosen_by(arm, steps)
        return replace(recipe, plan=replace(recipe.plan, peak=2 * recipe.plan.peak))

    return chosen


def test_an_interrupted_run_goes_on(work, monkeypatch):
    wanted = language.train("moe").model.state_dict()
    language._forget(work / home.STATE / "runs" / "moe-40")
    draw = language.Live.draw

    def stop(self):
        if Path(self.folder, "log.jsonl").exists():
            monkeypatch.setattr(language.Live, "draw", draw)
            import signal

            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(language.Live, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        language.train("moe")
    resumed = language.train("moe").model.state_dict()
    for name, value in wanted.items():
        assert torch.equal(resumed[name], value), name


def test_outside_a_work_folder_nothing_is_kept_there(work, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("bare")
    monkeypatch.chdir(elsewhere)
    language.train("dense-active")
    assert not list(elsewhere.iterdir())


def test_recorded_runs_of_another_text_are_said_to_be(work, capsys, monkeypatch):
    text = language.text_of(language._recipe("moe"))
    by_arm = language.recorded(text)
    assert "Compare gaps, not losses" in capsys.readouterr().out
    record = study.recorded("arm")
    assert sum(map(len, by_arm.values())) == len(record)
    same = {name: {**result, "corpus": text.corpus.fingerprint} for name, result in record.items()}
    monkeypatch.setattr(study, "recorded", lambda kind: same)
    language.recorded(text)
    assert capsys.readouterr().out == ""
