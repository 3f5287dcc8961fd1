"""A course of its own in a temporary folder, on which stock nbgrader commands run as they would anywhere."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from moe_course.grading.exercises.registry import exercises_of

ASSIGNMENT = "01_dense_ffn"
NAMES = [exercise.name for exercise in exercises_of(ASSIGNMENT)]


@dataclass
class Course:
    """An instructor's course folder, a learner's folder, and the exchange between them."""

    root: Path
    learner: Path
    env: dict[str, str]

    def nbgrader(self, *command, cwd=None):
        """Run a stock command as the instructor, or in another folder; returns what it printed."""
        run = subprocess.run(
            [sys.executable, "-m", "nbgrader", *map(str, command)],
            cwd=cwd or self.root,
            env=self.env,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"nbgrader {' '.join(map(str, command))}\n{run.stdout}{run.stderr}"
        return run.stdout + run.stderr

    def hand_in(self, student, notebook):
        """Lay a notebook where nbgrader looks for the submission of `student`, without the exchange."""
        path = notebook_file(self.root / "submitted" / student)
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)

    def autograded(self, student):
        return nbformat.read(notebook_file(self.root / "autograded" / student), as_version=4)


def jupyter_env(home: Path, exchange: Path) -> dict[str, str]:
    """An environment in which Jupyter and nbgrader see nothing of the user's own settings and data."""
    (home / "config").mkdir(parents=True)
    (home / "config" / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.Exchange.root = {str(exchange)!r}\n"
    )
    exchange.mkdir()
    exchange.chmod(0o777)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    return {
        **inherited,
        "HOME": str(home),
        "MOE_COURSE_SMALL": "1",  # grading is the subject here, not training
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # nbgrader calls alembic
    }


def notebook_file(folder: Path, assignment: str = ASSIGNMENT) -> Path:
    """Where an assignment's notebook lies in a folder of assignments."""
    return folder / assignment / f"{assignment}.ipynb"


def cell_of(notebook, grade_id):
    """The nbgrader cell with this grade_id."""
    return next(
        cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id
    )
