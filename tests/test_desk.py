"""JupyterLab as `moe-course lab` sets it up: read by JupyterLab's own functions, without starting it."""

import json

import pytest
from jupyter_core.paths import jupyter_path
from jupyterlab.commands import get_app_dir
from jupyterlab_server.config import get_page_config
from jupyterlab_server.settings_utils import get_settings

from moe_course.command import desk

INSTRUCTORS = {f"@jupyter/nbgrader:{name}" for name in ("course-list", "create-assignment", "formgrader")}
NEWS = "@jupyterlab/apputils-extension:notification"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's folder of Jupyter settings, empty at first."""
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "own"))
    return tmp_path / "own"


def left_out(settings):
    return {*get_page_config(jupyter_path("labextensions"), str(settings))["disabledExtensions"]}


def news(settings, own):
    folders = (str(settings), f"{get_app_dir()}/schemas", str(own / "lab" / "user-settings"))
    found, _ = get_settings(*folders, schema_name=NEWS, labextensions_path=jupyter_path("labextensions"))
    chosen, default = found["settings"], found["schema"]["properties"]["fetchNews"]["default"]
    return chosen.get("fetchNews", default)


def test_learners_see_no_tools_of_instructors_and_no_question_about_news(own):
    assert left_out(desk.DEFAULTS) >= INSTRUCTORS
    assert news(desk.DEFAULTS, own) == "false"


def test_a_stock_jupyterlab_keeps_them_all(own):
    stock = f"{get_app_dir()}/settings"
    assert not left_out(stock) & INSTRUCTORS
    assert news(stock, own) == "none"  # it asks


def test_what_a_user_has_set_counts_for_more(own):
    extensions, settings = own / "labconfig" / "page_config.json", own / "lab" / "user-settings"
    extensions.parent.mkdir(parents=True)
    extensions.write_text(json.dumps({"disabledExtensions": {"@jupyter/nbgrader:formgrader": False}}))
    news_file = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news_file.parent.mkdir(parents=True)
    news_file.write_text('{"fetchNews": "true"}')
    assert left_out(desk.DEFAULTS) & INSTRUCTORS == INSTRUCTORS - {"@jupyter/nbgrader:formgrader"}
    assert news(desk.DEFAULTS, own) == "true"


def test_the_layout_that_a_learner_left_stays(tmp_path):
    options = desk.options(tmp_path)
    (layout,) = (tmp_path / ".moe-course").rglob("*.jupyterlab-workspace")
    assert f"--LabApp.workspaces_dir={layout.parent}" in options
    assert "toc" in layout.read_text()
    left = json.dumps({"data": {}, "metadata": {"id": "default"}})
    layout.write_text(left)
    assert desk.options(tmp_path) == options
    assert layout.read_text() == left
