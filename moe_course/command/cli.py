"""The `moe-course` command. Each sub-command only calls the module that does the work."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from moe_course.command import explain, training
from moe_course.command.listing import listing


def _check(args: argparse.Namespace) -> int:
    from moe_course.grading.judge.files import check_files
    from moe_course.grading.judge.rendering import as_dict, as_text
    from moe_course.grading.judge.templates import printable
    from moe_course.grading.judge.verdict import draw_seed
    from moe_course.lesson import workspace

    good, graded, seed = True, False, draw_seed() if args.seed is None else args.seed
    for path, verdicts in check_files(args.files, args.exercise, args.jobs, seed=seed):
        if isinstance(verdicts, str):
            good = False
            print(printable(verdicts), file=sys.stderr)
            continue
        for verdict in verdicts:
            graded = True
            workspace.record_file(path, as_dict(verdict))
            good = good and verdict.status == "passed"
            if args.json:
                print(json.dumps({"file": str(path), **as_dict(verdict)}, ensure_ascii=False), flush=True)
            else:
                print(f"{path}\n{as_text(verdict)}\n", flush=True)
    if (graded or good) and not args.json:
        print(f"--seed {seed} repeats this run exactly")
    return 0 if good else 1


def _grade(args: argparse.Namespace) -> int:
    from moe_course.grading.cohort.exports import Names, anonymous
    from moe_course.grading.cohort.grade_cohort import grade
    from moe_course.grading.cohort.late import deadline
    from moe_course.grading.cohort.ledger import Ledger
    from moe_course.grading.judge.templates import printable

    if args.due is None and (args.grace or args.penalty != "none"):
        raise ValueError("--grace and --penalty need the deadline: --due “2027-03-01 23:59 UTC”")
    records = grade(
        args.submitted,
        args.out,
        args.assignment,
        args.jobs,
        args.resume,
        args.seed,
        args.unsafe,
        gradebook=args.gradebook,
        anonymise=args.anonymise,
        roster=args.roster,
        deadline=deadline(args.due, args.grace, args.penalty) if args.due is not None else None,
        feedback=args.feedback,
        dask=args.dask,
    )
    names = anonymous(Ledger(args.out)) if args.anonymise else Names()
    ungradable = [names.record(record) for record in records if record["status"] == "ungradable"]
    print(f"{len(records) - len(ungradable)} graded, {len(ungradable)} ungradable: see")
    for path in (args.out / "grades.csv", *sorted(args.out.glob("report-*.html"))):
        print(f"  {path}")
    for record in ungradable:
        print(printable(f"{record['student']}: {record['reason']}"))
    return 1 if ungradable else 0


def _regrade(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from moe_course.grading.cohort.exports import Names, anonymous
    from moe_course.grading.cohort.grade_cohort import regrade_diff
    from moe_course.grading.cohort.ledger import Ledger
    from moe_course.grading.judge.templates import printable

    changes = regrade_diff(
        args.submitted, args.out, args.assignment, args.jobs, args.unsafe, roster=args.roster
    )
    names = anonymous(Ledger(args.out)) if args.anonymise else Names()
    shown = [str(replace(change, student=names.student(change.student))) for change in changes]
    print(printable("\n".join(shown)) or "No score would change.")
    return 0


def _params(args: argparse.Namespace) -> int:
    from moe_course.published import MODELS, model
    from moe_course.systems.accounting import format_table

    if args.model is None:
        print("\n".join(MODELS))
        return 0
    print(format_table(model(args.model), args.model))
    return 0


def _release(args: argparse.Namespace) -> int:
    from moe_course.authoring import guides, recordings
    from moe_course.authoring.release import release
    from moe_course.authoring.rules import course_problems
    from moe_course.command import launch

    root = launch.checkout()
    fresh = [update(root, check=args.check) for update in (recordings.update, release, guides.update)]
    problems = course_problems(root)
    print("".join(f"{problem}\n" for problem in problems), end="")
    return 0 if all(fresh) and not problems else 1


def _dates(args: argparse.Namespace) -> int:
    from moe_course.authoring import syllabus

    print("\n".join(syllabus.dates(args.plan, args.start)))
    return 0


def _course(args: argparse.Namespace) -> int:
    from moe_course.authoring import course
    from moe_course.command import launch

    print("\n".join(course.update(launch.checkout(), args.folder) or ["Everything is up to date."]))
    return 0


def _bundle(args: argparse.Namespace) -> int:
    from moe_course.authoring import bundle
    from moe_course.command import launch

    print(bundle.write(launch.checkout(), args.folder))
    return 0


def _site(args: argparse.Namespace) -> int:
    from moe_course.authoring.site.build import build
    from moe_course.command import launch

    root = launch.checkout()
    target = args.folder or root / "build" / "site"
    build(root, target, root / "build" / "executed", full=args.full, teachers=args.teachers)
    print(f"{target / 'index.html'} is the first page.")
    return 0


def _slides(args: argparse.Namespace) -> int:
    from moe_course.authoring import slides
    from moe_course.command import launch

    for path in slides.write(launch.checkout(), args.notebook, args.out, small=args.small):
        print(path, flush=True)
    return 0


def _colab(args: argparse.Namespace) -> int:
    from moe_course.authoring import colab
    from moe_course.grading.exercises.locate import notebooks_dir

    print(colab.write(notebooks_dir(), args.folder, args.repository))
    return 0


def _lab(args: argparse.Namespace) -> int:
    from moe_course.command import launch

    return launch.lab(_course_root(), until_ready=args.until_ready, extra=args.extra)


def _test(args: argparse.Namespace) -> int:
    from moe_course.command import launch

    return launch.run_tests(launch.checkout(), everything=args.all, extra=args.extra)


def _quality(args: argparse.Namespace) -> int:
    from moe_course.command import launch

    return launch.quality(launch.checkout())


def _doctor(args: argparse.Namespace) -> int:
    from moe_course.command import doctor

    findings = doctor.report(Path.cwd())
    print(doctor.as_text(findings))
    return doctor.exit_code(findings)


def _start(args: argparse.Namespace) -> int:
    from moe_course.grading.exercises.locate import notebooks_dir
    from moe_course.lesson import handing_out

    messages = handing_out.start(notebooks_dir(), args.work or _work(), args.scripts)
    print("\n".join(messages or ["Everything is up to date."]))
    return 0


def _status(args: argparse.Namespace) -> int:
    from moe_course.lesson import workspace

    print(workspace.status(args.work or _work()))
    return 0


def _progress(args: argparse.Namespace) -> int:
    from moe_course.lesson import standing

    print(standing.as_text(args.work or _work()))
    return 0


def _certificate(args: argparse.Namespace) -> int:
    from moe_course import files
    from moe_course.grading.cohort import certificate
    from moe_course.grading.judge.templates import printable

    if args.verify:
        if args.key is None:
            raise ValueError(f"--verify {args.verify} needs the issuer's key: --key FILE")
        try:
            said = certificate.verified(args.verify.read_text(encoding="utf-8"), certificate.key_in(args.key))
        except ValueError as error:
            raise ValueError(f"{args.verify}: {error}") from None
        print(printable(f"{args.verify} is as it was issued: {said}"))
        return 0
    if args.grades:
        if not (args.student and args.key and args.html):
            raise ValueError(f"--from {args.grades} needs --student ID, --key FILE and --html FILE")
        made = certificate.graded(args.grades, args.student, args.name)
        if not args.key.exists():
            print(f"{args.key} is a new key: keep it, and keep it secret; --verify needs it")
        key = certificate.key_in(args.key, make=True)
    else:
        from moe_course.lesson import standing

        if not args.name or args.student or args.key:
            raise ValueError(
                "a certificate of your own needs --name NAME; --student and --key go with --from DIR"
            )
        made, key = standing.certificate(args.name, args.work or _work()), b""
    print(printable(certificate.as_text(made)))
    if args.html:
        files.write(args.html, certificate.as_page(made, key))
        print(f"written to {args.html}")
    return 0


def _card(args: argparse.Namespace) -> int:
    from moe_course import files
    from moe_course.lesson import card, home

    state = (args.work or _work()) / home.STATE
    if not state.is_dir():
        raise ValueError(f"{state.parent} is no work folder, so it holds no card; moe-course start makes one")
    print(card.as_text(state))
    if missing := card.missing(state):
        print(f"Still to come: {', '.join(missing)}")
    if args.html:
        files.write(args.html, card.as_page(state))
        print(f"written to {args.html}")
    return 0


def _reset(args: argparse.Namespace) -> int:
    from moe_course.lesson import workspace

    print("\n".join(workspace.reset(args.exercise, args.work or _work())))
    return 0


def _course_root() -> Path:
    """The checkout from which this package runs, or the current folder if the package is installed."""
    from moe_course.command import launch

    try:
        return launch.checkout()
    except ValueError:
        return Path.cwd()


def _work() -> Path:
    """The learner's copy of the notebooks: the work folder that we are in, else work/ of the course."""
    from moe_course.lesson import home

    state = home.state_dir()
    return state.parent if state else _course_root() / "work"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="moe-course",
        usage="%(prog)s [-h] COMMAND ...",
        description="The course on a command line. `moe-course COMMAND --help` says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="moe-course", help=argparse.SUPPRESS
    )
    texts: dict[str, str] = {}

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        texts[name] = text
        added = commands.add_parser(name, description=text)
        added.set_defaults(run=run)
        return added

    lab = command("lab", _lab, "open the course in JupyterLab, in your own copy of the notebooks")
    lab.add_argument("--until-ready", action="store_true", help="stop as soon as JupyterLab answers")
    lab.epilog = "Further options go to JupyterLab."

    for name, run, text in (
        ("start", _start, "make your own copy of the notebooks, or update it; keeps all you wrote"),
        ("status", _status, "what you have passed, what is open and what comes next"),
        ("progress", _progress, "a bar for each notebook, and the hours that are left"),
        ("certificate", _certificate, "what has passed, as a page: self-made, or issued by an instructor"),
        ("card", _card, "the model card of the course: parameters, routing, and cost of serving"),
    ):
        added = command(name, run, text)
        added.add_argument(
            "work", nargs="?", type=Path, metavar="FOLDER", help="default: work/ of the course"
        )
        if name in ("card", "certificate"):
            added.add_argument("--html", type=Path, metavar="FILE", help="write it as a page, too")
        if name == "certificate":
            added.add_argument("--name", metavar="NAME", help="the name on it")
            added.add_argument(
                "--from", dest="grades", type=Path, metavar="DIR", help="results of moe-course grade"
            )
            added.add_argument("--student", metavar="ID", help="who, as those results say")
            added.add_argument("--key", type=Path, metavar="FILE", help="the issuer's secret key")
            added.add_argument(
                "--verify", type=Path, metavar="FILE", help="was this page issued with the key?"
            )
        if name == "start":
            added.add_argument(
                "--scripts",
                action=argparse.BooleanOptionalAction,
                help="scripts with cells, for an IDE, in place of notebooks (default: what the folder holds)",
            )

    reset = command("reset", _reset, "put the stub of an exercise back and keep a copy of your code")
    reset.add_argument("exercise", metavar="EXERCISE", help="its name, or its number such as 2.2")
    reset.add_argument("work", nargs="?", type=Path, metavar="FOLDER", help="default: work/ of the course")

    check = command("check", _check, "grade .py or .ipynb files for the exercises they define")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--exercise", metavar="NAME", help="grade this exercise only (or its number)")
    check.add_argument("--jobs", type=_positive, default=1, metavar="N", help="files graded at a time")
    check.add_argument("--seed", type=int, metavar="N", help="repeat a run exactly (default: drawn)")
    check.add_argument("--json", action="store_true", help="one JSON object a line")

    grade = command("grade", _grade, "grade a cohort: a folder or zip of submissions, each in a sandbox")
    regrade = command("regrade", _regrade, "whose score would change if everything were graded again")
    for cohort in (grade, regrade):
        cohort.add_argument("submitted", type=Path, metavar="SUBMITTED")
        cohort.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results are")
        cohort.add_argument("--assignment", metavar="NAME", help="this assignment only")
        cohort.add_argument("--jobs", type=_positive, default=1, metavar="N", help="submissions at a time")
        cohort.add_argument(
            "--roster", type=Path, metavar="CSV", help="the learners, and what platforms call them"
        )
        cohort.add_argument(
            "--anonymise", action="store_true", help="pseudonyms in the reports and on the terminal"
        )
        cohort.add_argument("--unsafe", action="store_true", help="without a sandbox, with your own rights")
    grade.add_argument("--resume", action="store_true", help="go on in a folder that holds results")
    grade.add_argument("--seed", type=int, metavar="N", help="the cohort's seed (default: drawn and stored)")
    grade.add_argument(
        "--gradebook", type=Path, metavar="DB", help="nbgrader's database, to write scores into"
    )
    grade.add_argument("--due", metavar="TIME", help="the deadline, such as “2027-03-01 23:59 UTC”")
    grade.add_argument(
        "--grace", type=float, default=0.0, metavar="DAYS", help="days after it that cost nothing"
    )
    grade.add_argument(
        "--penalty",
        default="none",
        metavar="RULE",
        help="zero, a share a day (10%%), or a nbgrader plug-in module.Class",
    )
    grade.add_argument(
        "--feedback", type=Path, metavar="DIR", help="write a page for each learner, and Moodle's zip"
    )
    grade.add_argument("--dask", metavar="ADDRESS", help="grade on the workers of this Dask scheduler")
    regrade.add_argument("--diff", action="store_true", required=True, help="say it, and write nothing")

    params = command("params", _params, "parameters, FLOPs and bytes of a published model")
    params.add_argument("model", nargs="?", metavar="MODEL", help="a preset; without it, the list of presets")

    command("doctor", _doctor, "what this machine has, and what to do about what it lacks")

    test = command("test", _test, "run the tests of the checkout")
    test.add_argument("--all", action="store_true", help="twenty seeds, notebooks in full")
    test.epilog = "Further options go to pytest."

    command("quality", _quality, "formatting, lint, types, freshness of what is generated, quick tests")

    course = command("course", _course, "a course of your own: its points, exercises and hidden tests")
    course.add_argument("folder", type=Path, metavar="DIR")
    dates = command("dates", _dates, "nbgrader's due dates for a plan of docs/teaching/syllabi.md")
    dates.add_argument("--start", required=True, metavar="DATE", help="the first day, such as 2027-01-11")
    dates.add_argument("--plan", required=True, metavar="PLAN", help="five-days, six-weeks or semester")
    bundle = command(
        "bundle", _bundle, "what learners need and nothing that tells an answer, in a new folder"
    )
    bundle.add_argument("folder", type=Path, metavar="DIR")
    colab = command("colab", _colab, "copies of the notebooks for Google Colab, which install the course")
    colab.add_argument("folder", type=Path, metavar="DIR")
    colab.add_argument("--repository", metavar="URL", help="where pip finds the course (a URL, or a wheel)")

    slides = command(
        "slides", _slides, "a deck for a lecture from each notebook: one HTML file that loads nothing"
    )
    slides.add_argument("notebook", metavar="NOTEBOOK", help="its name or number, or “all”")
    slides.add_argument("--out", type=Path, required=True, metavar="DIR")
    slides.add_argument("--small", action="store_true", help="a quick look: train for a few steps only")

    site = command(
        "site", _site, "the course as a web site: executed notebooks with answers, and the documents"
    )
    site.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="default: build/site")
    site.add_argument("--full", action="store_true", help="train in full: about an hour on two cores")
    site.add_argument("--teachers", action="store_true", help="with the guides, which answer exam questions")

    explain.add_command(command)
    training.add_commands(command)

    release = command(
        "release", _release, "bring notebooks/, recorded misconceptions and teaching guides up to date"
    )
    release.add_argument(
        "--check", action="store_true", help="only say what is stale; exit code 1 if anything"
    )
    parser.epilog = listing(texts)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Three kinds of errors are printed as one line, without a traceback: ValueError (a mistake of the user), OSError (a
    problem of the machine, such as a full disk), and FloatingPointError (a training that has diverged).
    """
    parser = build_parser()
    args, extra = parser.parse_known_args(argv)
    args.extra = extra
    if extra and args.command not in ("lab", "test"):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe, as in `moe-course params X | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"moe-course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"moe-course: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
