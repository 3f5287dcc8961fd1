"""nbgrader on this repository: every stock command works from the repository's root.

nbgrader generate_assignment 02_topk_routing --force      solutions/ -> notebooks/
nbgrader autograde 02_topk_routing                        submitted/ -> autograded/, gradebook.db
nbgrader generate_feedback 02_topk_routing                autograded/ -> feedback/
"""

from pathlib import Path

c = get_config()  # noqa: F821  (traitlets puts it there)

c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.CourseDirectory.course_id = "moe"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "notebooks"

# What a learner sees in place of an answer.
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError  # your code here"}

# An exercise may bring code of its own for that place: moe_course/authoring/stubs.py says how. The other
# preprocessors are nbgrader's usual ones.
c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors.IncludeHeaderFooter",
    "nbgrader.preprocessors.InstantiateTests",
    "nbgrader.preprocessors.LockCells",
    "moe_course.authoring.stubs.Stubs",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.CheckCellMetadata",
    "nbgrader.preprocessors.ComputeChecksums",
    "nbgrader.preprocessors.SaveCells",
    "nbgrader.preprocessors.ClearHiddenTests",
    "nbgrader.preprocessors.ClearMarkScheme",
    "nbgrader.preprocessors.ComputeChecksums",
    "nbgrader.preprocessors.CheckCellMetadata",
]

# A check takes seconds; what takes minutes hangs. The interrupted cell leaves the kernel to the next one if the
# kernel has time to say so: after the default of 4 seconds nbgrader would give up the whole submission.
c.ExecutePreprocessor.timeout = 120
c.ExecutePreprocessor.interrupt_on_timeout = True
c.ExecutePreprocessor.iopub_timeout = 30

# nbgrader keeps the text between BEGIN and END HIDDEN TESTS out of the release, but not out of the feedback. Inert
# makes plain text of learners' markdown that could act on whoever opens it; the repair has done so before grading.
c.GenerateFeedback.preprocessors = [
    "moe_course.grading.plugins.Inert",
    "nbgrader.preprocessors.GetGrades",
    "nbgrader.preprocessors.ClearHiddenTests",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]

# Feedback of submissions that did not come through the exchange is named, and does not stop the rest.
c.ExchangeFactory.release_feedback = "moe_course.grading.plugins.ReleaseFeedback"

# A deleted check comes back before grading; without this it would wait for a manual grade for ever.
c.OverwriteCells.add_missing_cells = True

# Submissions are repaired, then graded by the course's judge in a sandbox; nbgrader itself runs none of their cells.
# Where no sandbox can start, autograde refuses; `c.Judge.unsafe = True` runs them with your own rights all the same.
c.Autograde.sanitize_preprocessors = [
    "moe_course.grading.plugins.Repair",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    "moe_course.grading.plugins.Judge",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
# The graders' random numbers start from a seed that is drawn at the first autograde and kept beside the gradebook
# (gradebook.db.seed, for your eyes only), since whoever knows it can look up what will be asked.
