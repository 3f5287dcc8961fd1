"""JupyterLab as a learner finds it: no instructor's tools, no question about news, the table of contents open.

jupyterlab/page_config.json   the extensions that are left out, and no search for a newer build
jupyterlab/overrides.json     settings that differ from JupyterLab's own

JupyterLab reads both first, so whatever a user has set counts for more. A stock `jupyter lab` reads neither. The
server's side of the instructors' tools is left out too: where there is no nbgrader_config.py, as in a student bundle,
the formgrader warns of that twice at every start.
"""

from __future__ import annotations

import json
from pathlib import Path

from moe_course.lesson.home import STATE

INSTRUCTORS = tuple(f"nbgrader.server_extensions.{name}" for name in ("formgrader", "course_list"))
DEFAULTS = Path(__file__).with_name("jupyterlab")
_WORKSPACE = "default"  # JupyterLab's name for the tabs and panels of the first browser window
_CONTENTS_OPEN = {
    "left": {
        "collapsed": False,
        "current": "@jupyterlab/toc:plugin",
        "widgets": ["filebrowser", "running-sessions", "@jupyterlab/toc:plugin"],
    },
    "relativeSizes": [0.2, 0.8, 0],
}


def options(work: Path) -> list[str]:
    """The options of JupyterLab that set this up. work: the learner's folder, in which the tabs are remembered.

    The first call writes which panel is open; afterwards JupyterLab keeps what the learner opens and closes.
    """
    from jupyterlab_server.workspaces_handler import WorkspacesManager

    folder = work / STATE / "jupyterlab"
    kept = WorkspacesManager(str(folder))
    if not kept.list_workspaces():
        layout = {
            "data": {"layout-restorer:data": _CONTENTS_OPEN},
            "metadata": {"id": _WORKSPACE},
        }
        kept.save(_WORKSPACE, json.dumps(layout))
    without = [f"--ServerApp.jpserver_extensions={name}=False" for name in INSTRUCTORS]
    return [f"--LabApp.app_settings_dir={DEFAULTS}", f"--LabApp.workspaces_dir={folder}", *without]
