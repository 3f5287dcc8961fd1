import json
import re

import pytest

from moe_course.command.cli import main
from moe_course.grading.exercises.rubric import points

RIGHT = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n"
WRONG = "def ffn_params(d_model, d_ff):\n    return 2 * d_model * d_ff\n"


@pytest.fixture
def files(tmp_path):
    for name, text in {"right.py": RIGHT, "wrong.py": WRONG, "empty.py": "x = 1\n"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_check_prints_one_json_object_a_line(files, capsys):
    code = main(
        ["check", str(files / "right.py"), str(files / "wrong.py"), "--json", "--jobs", "2", "--seed", "7"]
    )
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 1
    wanted = {"file", "exercise", "status", "score", "max_score", "seconds", "checks", "diagnosis"}
    assert wanted <= first.keys()
    assert (first["file"], first["exercise"], first["status"]) == (
        str(files / "right.py"),
        "ffn_params",
        "passed",
    )
    assert first["score"] == first["max_score"] == points("ffn_params")
    assert {"name", "status", "message", "hint"} <= first["checks"][0].keys()
    assert second["status"] == "failed"
    assert second["diagnosis"]["name"] == "two_matrices"
    assert second["checks"][0]["hint"].endswith("?")


def test_check_says_yes_only_if_everything_passed(files, capsys):
    assert main(["check", str(files / "right.py")]) == 0
    full = points("ffn_params")
    assert f"1.2 ffn_params: passed, {full} of {full} points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nowhere.py"], "nowhere.py: no such file"),
        (["check", "{}/empty.py"], "defines no exercise"),
        (["check", "{}/right.py", "--exercise", "router_probs"], "defines no router_probs"),
        (["check", "{}/right.py", "--exercise", "nonsense"], "no exercise called 'nonsense'"),
        (["check", "{}"], "a submission is a .py or an .ipynb file"),
        (["params", "gpt-17"], "gpt-17"),
        (["reset", "nonsense", "{}"], "nonsense"),
        (["grade", "{}/nowhere", "--out", "{}/out", "--unsafe"], "nowhere"),
        (["bundle", "{}/right.py/handout"], "right.py"),
        (["course", "{}"], "is not empty"),
    ],
)
def test_bad_input_gets_one_clear_line(files, capsys, arguments, words):
    assert main([argument.format(files) for argument in arguments]) != 0
    out, said = capsys.readouterr()
    assert words in said
    assert "Traceback" not in said
    assert "repeats this run" not in out, "nothing was run"


def test_params_prints_the_published_counts(capsys):
    assert main(["params", "mixtral-8x7b"]) == 0
    said = capsys.readouterr().out
    assert "46,702,792,704" in said
    assert "12,879,925,248" in said


def test_params_without_a_model_lists_them(capsys):
    assert main(["params"]) == 0
    assert "olmoe-1b-7b" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    "wrong", [["check"], ["check", "a.py", "--jobs", "0"], ["status", "a", "b"], ["nonsense"]]
)
def test_wrong_usage_exits_with_2(wrong):
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2


def test_help_lists_every_command_once_and_those_of_learners_first(capsys):
    for argument in ("--help", "nonsense"):
        with pytest.raises(SystemExit):
            main([argument])
    said, error = capsys.readouterr()
    listed = re.findall(r"^  ([a-z]+) ", said.partition("for learners:")[2], flags=re.MULTILINE)
    assert sorted(listed) == sorted(re.findall(r"[a-z]+", error.partition("choose from")[2]))
    headings = re.findall(r"^([a-z ]+):$", said.partition("and exit")[2], flags=re.MULTILINE)
    assert headings == ["for learners", "language model and systems", "for teachers and authors"]
    assert listed.index("check") < listed.index("params") < listed.index("grade")


def test_the_card_is_printed_and_written(tmp_path, capsys):
    (tmp_path / ".moe-course").mkdir()
    (tmp_path / ".moe-course" / "card.json").write_text('{"cost": {"bytes of a step": 7}}', encoding="utf-8")
    page = tmp_path / "card.html"
    assert main(["card", str(tmp_path), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "bytes of a step: 7" in said
    assert "Still to come: Active parameters per token (notebooks 02 and 10), Stability" in said
    assert "bytes of a step" in page.read_text(encoding="utf-8")
    assert main(["card", str(tmp_path / "elsewhere")]) == 2
    assert "no work folder" in capsys.readouterr().err
