"""nbgrader plug-ins: the repair, the judge and the sandbox under the ordinary `nbgrader autograde`.

nbgrader_config.py puts `Repair` before the sanitising preprocessors and `Judge` in the place of `Execute`. No cell of
a submission is then run by nbgrader: the solution cells go to a sandboxed worker, the judge asks its questions, and
the rubric and the score are written into the grade cells as if they had been run.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import ExchangeReleaseFeedback
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Integer

from moe_course.grading.cohort.ledger import seed_beside
from moe_course.grading.exercises import locate
from moe_course.grading.exercises.registry import exercises_of
from moe_course.grading.judge.files import grade_submission
from moe_course.grading.judge.rendering import as_html, as_text
from moe_course.grading.judge.verdict import Verdict
from moe_course.grading.submission.attempts import from_notebook
from moe_course.grading.submission.repair import Ungradable, repair
from moe_course.grading.submission.sanitising import make_inert
from moe_course.grading.worker.sandbox import walls

OF_THE_EXCHANGE = ("timestamp.txt", "submission_secret.txt")


class Repair(NbGraderPreprocessor):
    """Puts a damaged notebook of the course back into the shape of its release; every repair is logged."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """The repaired notebook. Raises Ungradable, which nbgrader reports for this student."""
        name = resources["nbgrader"]["notebook"]
        if converter := getattr(self.parent, "parent", None):  # the exporter belongs to nbgrader's Autograde
            for path in _leave_out_other_files(converter.coursedir, resources["nbgrader"]):
                self.log.warning("%s: %s stays in submitted/", resources["nbgrader"]["student"], path)
        if not exercises_of(name):
            _make_inert(nb, name)
            return nb, resources
        released = nbformat.read(locate.released(name), as_version=4)
        repaired = repair(nb, released)
        for note in repaired.notes:
            self.log.warning("%s: %s", resources["nbgrader"]["student"], note)
        return repaired.notebook, resources


def _leave_out_other_files(coursedir: CourseDirectory, names: dict[str, Any]) -> list[Path]:
    """Delete what nbgrader copied from beside the submitted notebook; returns the paths within the submission.

    Formgrader serves such files, pages and scripts too, with the instructor's rights, and the learner gets them back
    with the feedback, also where they were links to files that only the instructor can read. The master versions from
    the source folder stay, and the files of the exchange.
    """
    student, assignment = names["student"], names["assignment"]
    graded = Path(coursedir.format_path(coursedir.autograded_directory, student, assignment))
    masters = Path(coursedir.format_path(coursedir.source_directory, ".", assignment))
    others = [path.relative_to(graded) for path in sorted(graded.rglob("*")) if not path.is_dir()]
    others = [path for path in others if path.suffix != ".ipynb" and str(path) not in OF_THE_EXCHANGE]
    others = [path for path in others if not (masters / path).is_file()]
    for path in others:
        (graded / path).unlink()
    return others


class Inert(NbGraderPreprocessor):
    """Keeps scripts of a submission out of its feedback, whatever graded it: see `submission.sanitising`."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook whose text cells do nothing to the person who opens them. Outputs are the judge's and stay."""
        _make_inert(nb, resources["nbgrader"]["notebook"])
        return nb, resources


def _make_inert(nb: NotebookNode, name: str) -> None:
    path = locate.released(name)
    cells = nbformat.read(path, as_version=4).cells if path.is_file() else ()
    released = {cell.id: cell for cell in cells}
    texts = [cell for cell in nb.cells if cell.cell_type != "code"]
    _ = list(make_inert([(cell, released.get(cell.get("id"))) for cell in texts]))


class Judge(NbGraderPreprocessor):
    """Grades the exercises of a course notebook in a sandbox, in the place of nbgrader's `Execute`."""

    seed = Integer(
        None,
        allow_none=True,
        help="The seed of the graders' random numbers, the same for a whole course. By default one is drawn and kept "
        "beside the gradebook; never put one where a learner can read it.",
    ).tag(config=True)
    unsafe = Bool(False, help="Run submissions without a sandbox, with your own rights.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook with a rubric and a score in each grade cell. Raises Ungradable, never scores 0 for it."""
        name = resources["nbgrader"]["notebook"]
        exercises = [exercise.name for exercise in exercises_of(name)]
        if not exercises:
            raise Ungradable(f"{name} is no notebook of this course; grade it with nbgrader's own Execute")
        submission = from_notebook(Path(f"{name}.ipynb"), json.loads(nbformat.writes(nb)))
        verdicts = grade_submission(submission, exercises, self._seed(resources), walls(self.unsafe))
        for verdict in verdicts:
            if verdict.problem:
                raise Ungradable(verdict.problem)
        by_cell = {f"check_{verdict.exercise}": verdict for verdict in verdicts}
        for number, cell in enumerate(nb.cells, start=1):
            if cell.cell_type == "code":
                cell.outputs = []
                grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
                if grade_id in by_cell:
                    cell.execution_count = number
                    worth = cell.metadata.nbgrader.get("points", by_cell[grade_id].max_score)
                    cell.outputs = _outputs(by_cell[grade_id], worth, number)
        return nb, resources

    def _seed(self, resources: dict[str, Any]) -> int:
        """The configured seed, else the one that is kept beside the gradebook."""
        if self.seed is not None:
            return self.seed
        place, _, database = resources["nbgrader"]["db_url"].partition(":///")
        if place != "sqlite" or not database:
            raise ValueError(
                f"the gradebook is no file ({place}): there is no place beside it for the seed that graders draw "
                "their numbers from; give `nbgrader autograde` one that no learner knows, --Judge.seed=N"
            )
        return seed_beside(Path(database))


def _outputs(verdict: Verdict, worth: float, number: int) -> list[NotebookNode]:
    """What running `check(...)` would have left: the rubric, and the score in the points of the grade cell."""
    rubric = {"text/html": as_html(verdict), "text/plain": as_text(verdict)}
    score = verdict.score * worth / verdict.max_score
    return [
        new_output("display_data", rubric),
        new_output("execute_result", {"text/plain": repr(score)}, execution_count=number),
    ]


class ReleaseFeedback(ExchangeReleaseFeedback):
    """Releases the feedback of all who submitted through the exchange, and names the others.

    nbgrader's own stops at the first submission that came another way: it has no timestamp and no secret, and so
    no address under which its learner could fetch the feedback.
    """

    def copy_files(self) -> None:
        """Copy the feedback files of one assignment to the exchange."""
        folders = sorted(map(Path, glob.glob(self.src_path)))
        others = [
            folder for folder in folders if not all((folder / name).is_file() for name in OF_THE_EXCHANGE)
        ]
        if others:
            self.log.warning(
                "Not submitted through the exchange, so hand out their feedback yourself: %s",
                ", ".join(map(str, others)),
            )
        students = [folder.parent.name for folder in others]
        self.coursedir.student_id_exclude = ",".join(
            filter(None, [self.coursedir.student_id_exclude, *students])
        )
        super().copy_files()
