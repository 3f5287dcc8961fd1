"""Records of cohorts that were never graded, for tests of what is made of records."""

from moe_course.grading.exercises.registry import EXERCISES

ASSIGNMENT = "01_dense_ffn"
FIRST, SECOND = "ffn_params", "ffn_flops"


def verdict(
    exercise=FIRST, status="passed", failed=(), seconds=0.5, reason="", mistake=None, question="Why?"
):
    """The verdict on an exercise of two checks, 1 and 2 points; `failed` names those that failed."""
    ran = status in ("passed", "failed")
    checks = [
        {
            "name": name,
            "title": f"{name} of {exercise}",
            "status": ("failed" if name in failed else "passed") if ran else "not run",
            "points": points,
            "message": "",
            "hint": "",
        }
        for name, points in (("easy", 1), ("hard", 2))
    ]
    return {
        "exercise": exercise,
        "status": status,
        "score": sum(float(check["points"]) for check in checks if check["status"] == "passed"),
        "max_score": 3.0,
        "seconds": seconds,
        "seed": 7,
        "reason": reason,
        "checks": checks,
        "diagnosis": mistake and {"name": mistake, "question": question},
    }


def record(student, *verdicts, reason="", assignment=ASSIGNMENT, **more):
    """The record of a submission; one with a reason is ungradable."""
    return {
        "student": student,
        "lms_id": "",
        "assignment": assignment,
        "notebook": assignment,
        "file": f"{student}.ipynb",
        "status": "ungradable" if reason else "graded",
        "reason": reason,
        "score": None if reason else sum(v["score"] for v in verdicts),
        "max_score": sum(v["max_score"] for v in verdicts) if verdicts else None,
        "repairs": [],
        "verdicts": list(verdicts),
        "solutions": {},
        "seed": 7,
        "key": "k",
        "version": "0",
        "environment": {"python": "3.11"},
        "sandboxed": True,
        "again": False,
        "started": "2026-01-02T03:04:05.000000+00:00",
        "graded": "2026-01-02T03:04:06.000000+00:00",
        "seconds": sum(v["seconds"] for v in verdicts),
        **more,
    }


def crowd(size):
    """A cohort with something of everything, the larger the more."""
    exercises = [e for e in EXERCISES.values() if e.notebook == ASSIGNMENT]
    records = [record("eve", reason="the file is cut off: ask for it again")]
    for n in range(size):
        verdicts = []
        for place, exercise in enumerate(exercises):
            failed = [("easy", "hard")[: (n + place) % 3], ()][n % 4 == 0]
            status = "failed" if failed else "passed"
            if n % 11 == place:
                status, failed = ("crashed", "timed out", "not attempted")[n % 3], ()
            mistake = f"mistake_number_{(n * n) % 7}" if status == "failed" else None
            reason = "the process ended with exit code 1" if status == "crashed" else ""
            verdicts.append(verdict(exercise.name, status, failed, 0.1 * n, reason, mistake))
        solutions = {e.name: {"hash": str(n // 2 if n % 5 else 0), "statements": 4} for e in exercises}
        repairs = ["setup: lost its tag: put back"] if n % 6 == 0 else []
        records.append(record(f"Student Number {n}", *verdicts, solutions=solutions, repairs=repairs))
    return records
