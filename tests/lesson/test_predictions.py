import pytest

from moe_course.lesson import card, home, predictions
from moe_course.lesson.predictions import predict, reveal

QUESTION = ("q", "Which?", ["left", "right"])


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch, tmp_path):
    """Nothing remembered, and a folder that is no work folder."""
    monkeypatch.setattr(predictions, "_session", {})
    monkeypatch.setattr(card, "_session", {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def work(tmp_path):
    (tmp_path / ".moe-course").mkdir()
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(predictions, "publish", lambda markup, text: lines.append((markup, text)))
    return lines


def test_a_committed_prediction_is_compared(said):
    predict(*QUESTION, answer=1)
    reveal("q", 2, "because")
    assert "You predicted: left." in said[-1][1]
    assert "What happened: right." in said[-1][1]


def test_a_right_prediction(said):
    predict(*QUESTION, answer=2)
    reveal("q", 2, "because")
    assert "You predicted that." in said[-1][1]


def test_without_a_prediction_the_lesson_goes_on(said):
    predict(*QUESTION)
    reveal("q", 2, "because")
    assert "No prediction was committed" in said[-1][1]
    reveal("never asked", 1, "because")
    assert said[-1][1] == "because"


def test_only_what_was_said_before_the_result_counts(said):
    predict(*QUESTION, answer=1)
    reveal("q", 2, "because")
    predict(*QUESTION, answer=2)
    reveal("q", 2, "because")
    assert "You predicted: left." in said[-1][1]


def test_a_change_of_mind_before_the_result_is_kept_and_counts(work, said):
    for answer in (1, 2, 2):
        predict(*QUESTION, answer=answer)
    answers = home.read_json(work / ".moe-course" / predictions.FILE)["q"]["answers"]
    assert [entry["answer"] for entry in answers] == [1, 2]
    reveal("q", 2, "because")
    assert "You predicted that." in said[-1][1]


@pytest.mark.parametrize("answer", [0, 3, "left", 1.5, True])
def test_an_answer_that_is_no_option_is_named_and_does_not_stop_the_notebook(work, said, answer):
    predict(*QUESTION, answer=answer)
    assert f"answer={answer!r} is no option: choose a number from 1 to 2" in said[-1][1]
    assert home.read_json(work / ".moe-course" / predictions.FILE)["q"]["answers"] == []


def test_a_question_put_otherwise_in_a_newer_release_is_asked_anew(work, said):
    predict(*QUESTION, answer=2)
    predict("q", "Which?", ["left", "middle", "right"])
    reveal("q", 3, "because")
    assert "What happened: right. No prediction was committed" in said[-1][1]


def test_stored_in_the_work_folder_and_nowhere_else(work, tmp_path, monkeypatch, said):
    (work / "02_topk_routing").mkdir()
    monkeypatch.chdir(work / "02_topk_routing")
    predict(*QUESTION, answer=1)
    kept = {path.name for path in (work / ".moe-course").iterdir()}
    assert {name for name in kept if not name.endswith(".lock")} == {predictions.FILE}
    assert list((work / "02_topk_routing").iterdir()) == []


@pytest.mark.parametrize("damage", ["{ not json", "[]", '{"q": 3}', '{"q": {"options": []}}'])
def test_a_damaged_file_stops_nobody(work, said, damage):
    (work / ".moe-course" / predictions.FILE).write_text(damage)
    predict(*QUESTION, answer=1)
    reveal("q", 1, "because")
    assert "You predicted that." in said[-1][1]


def test_markup_is_escaped(said):
    predict("k", "<b>?", ["<script>", "b"], answer=1)
    assert "<script>" not in said[-1][0]


def test_a_disk_that_takes_nothing_stops_nobody(work, said, monkeypatch):
    def full(path, data):
        raise OSError("no space left on device")

    monkeypatch.setattr(home, "write_json", full)
    predict(*QUESTION, answer=1)
    reveal("q", 1, "because")
    card.update("cost", {"bytes": 1})
    assert "this session only: no space left on device" in said[0][1]
    assert "You predicted that." in said[-1][1]


def test_outside_a_work_folder_it_says_that_nothing_is_stored(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    predict(*QUESTION, answer=1)
    assert "On record" not in said[-1][1]
    assert "this session only" in said[-1][1]
    assert "not in a work folder" in said[-1][1]


def test_what_was_committed_lists_its_time_and_order(work, said):
    predict(*QUESTION, answer=1)
    reveal("q", 2, "because")
    predict(*QUESTION, answer=2)
    answers = home.read_json(work / ".moe-course" / predictions.FILE)["q"]["answers"]
    assert [(entry["answer"], entry["after_result"]) for entry in answers] == [(1, False), (2, True)]
    assert answers[0]["when"] <= answers[1]["when"]


def test_the_card_keeps_what_it_was_told(work, monkeypatch):
    shown = []
    monkeypatch.setattr(card, "publish", lambda markup, text: shown.append(text))
    card.show()
    assert "to come: notebooks 02 and 10" in shown[-1]
    card.update("active", {"total": 3328})
    card.update("active", {"active": 640})
    card.show()
    assert "total: 3,328" in shown[-1]
    assert "active: 640" in shown[-1]
    assert "to come: notebooks 09 and 10" in shown[-1]


def test_the_card_has_three_sections():
    with pytest.raises(ValueError, match="no section 'speed'"):
        card.update("speed", {})


def test_the_card_works_without_a_work_folder(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(card, "publish", lambda markup, text: shown.append(text))
    card.update("cost", {"bytes": 2.5})
    card.show()
    assert "bytes: 2.5" in shown[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_card_as_a_page(work):
    card.update("active", {"total <b>": 3328})
    card.update("cost", {"bytes": 7})
    state = work / home.STATE
    page = card.as_page(state)
    assert page.startswith("<!doctype html>")
    assert "total &lt;b&gt;" in page
    assert "3,328" in page
    assert card.missing(state) == ["Stability of the routing (notebooks 02 to 10)"]
