"""For every test: one thread, set before torch is imported, so that results do not depend on the machine."""

import os
import shutil
import time
from pathlib import Path
from unittest import mock

import pytest

CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",  # no test needs a network
]

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # kernels and workers that a test starts inherit it


def pytest_addoption(parser):
    parser.addoption(
        "--seeds", type=int, default=3, metavar="N", help="seeds each grader is tried with (default 3)"
    )
    parser.addoption(
        "--full", action="store_true", help="run the notebooks in full, not at their small settings"
    )


def pytest_collection_modifyitems(config, items):
    """What is marked `full` runs with --full only: `make test-all`, before a release."""
    if not config.getoption("--full"):
        long = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


def pytest_report_header(config):
    return f"grader seeds: {_seeds(config)}"


def _seeds(config):
    """`--seeds N` seeds that change every day, so that a flaky grader cannot hide behind a lucky one."""
    first = int(time.time()) // 86_400 * 1_000
    return [first + n for n in range(config.getoption("--seeds", 3))]


@pytest.fixture(scope="session")
def grader_seeds(request):
    return _seeds(request.config)


@pytest.fixture(scope="module", autouse=True)
def environment():
    """What a file's tests do to the environment ends with them: files share a process."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def executed(tmp_path_factory, request):
    """Executed notebooks by tree and name, each run once, whichever test or process asks first.

    Trainings are at their small settings unless pytest has --full. A figure that cannot be read is an error.
    """
    from moe_course.authoring import executed

    base = tmp_path_factory.getbasetemp()
    store = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "executed"
    root = Path(__file__).resolve().parents[1]

    def run(tree, name):
        notebook = root / tree / name / f"{name}.ipynb"
        return executed.executed(notebook, store, full=request.config.getoption("--full"))

    return run


def missing(message):
    """A laptop skips what it cannot test, and CI, which should have everything, fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


@pytest.fixture(scope="session")
def needs_sandbox():
    """The sandbox of batch grading starts here."""
    from moe_course.grading.worker import sandbox

    if why := sandbox.problem():
        missing(f"no sandbox starts here: {why}")


@pytest.fixture(scope="module")  # playwright keeps an event loop running, which other files must not find
def browser():
    """Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing("needs Chromium on the PATH (as chromium, chromium-browser or google-chrome)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM)
        yield browser
        browser.close()
