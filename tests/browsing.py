"""What tests need that see the course as a person does: servers, pages that wait, pictures, and axe."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from synthetic import ROOT

PATIENCE = 300_000  # milliseconds, for what takes seconds on a quiet machine


@contextmanager
def running(command, folder, env, ready):
    """A server that works in a folder; yields what `ready(its log)` finds, as soon as it finds something."""
    log = folder.parent / "server.log"
    with open(log, "w", encoding="utf-8") as printed:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=printed, stderr=subprocess.STDOUT)
    try:
        while not (found := ready(log.read_text(encoding="utf-8"))):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield found
    finally:
        server.terminate()
        server.wait()


def new_page(browser, **options):
    """A page in a window of its own, which waits long for everything: a busy machine is no failure."""
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE)
    return page


def photograph(view, name):
    """Keep a picture of a page, or of a part of it, in build/screenshots or $MOE_COURSE_SCREENSHOTS."""
    folder = Path(os.environ.get("MOE_COURSE_SCREENSHOTS", ROOT / "build" / "screenshots"))
    view.screenshot(path=folder / f"{name}.png")
    Image.open(folder / f"{name}.png").quantize(128).save(folder / f"{name}.png", optimize=True)


def barriers(page, **options):
    """What axe, a checker of accessibility, calls serious or critical on a page: a line each."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{found['id']}: {found['help']}: {node['html']}"
        for found in Axe().run(page, **options).response["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]
