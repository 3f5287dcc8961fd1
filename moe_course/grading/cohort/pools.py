"""Where submissions are graded: in threads that wait for sandboxed processes here, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from moe_course.grading.submission.intake import environment, graders
from moe_course.grading.worker import sandbox
from moe_course.grading.worker.sandbox import Limits

PATIENCE = 60.0  # seconds that a cluster may be without a worker, and a scheduler without an answer


class DaemonThreads(Executor):
    """Threads that do not keep the program from ending: after Ctrl-C nobody waits for what they are at.

    The judge waits for its sandboxed processes most of the time, so threads are enough.
    """

    def __init__(self, number: int):
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._number = number
        for n in range(number):
            threading.Thread(target=self._work, name=f"judge_{n}", daemon=True).start()

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.put((future, lambda: call(*args, **options)))
        return future

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Begin nothing more. Never waits: what is under way ends by itself, or with the program."""
        with contextlib.suppress(queue.Empty):
            while cancel_futures and (item := self._waiting.get_nowait()) is not None:
                item[0].cancel()
        for _ in range(self._number):
            self._waiting.put(None)


class Cluster(Executor):
    """The workers of a Dask scheduler. One that dies loses nothing: the scheduler gives its work to another."""

    def __init__(self, client: Any, sandboxed: bool):
        self._client = client
        self._sandboxed = sandboxed
        self._expected = graders(), environment()
        fit, unfit = self._look_at_workers()
        for address, reason in unfit.items():
            print(f"the worker {address} grades nothing: {reason}", file=sys.stderr)
        if not fit:
            raise ValueError("no worker of the cluster can grade: " + "; ".join(sorted(set(unfit.values()))))
        only = {"workers": fit, "allow_other_workers": False} if unfit else {}
        self._executor = client.get_executor(pure=False, **only)
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(
            _if_fit, self._expected, self._sandboxed, call, *args, **options
        )
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take back what is not done."""
        self._over.set()
        self._executor.shutdown(wait=False)

    def _look_at_workers(self) -> tuple[list[str], dict[str, str]]:
        """The addresses of the workers that can grade; and of the others, with the reason."""
        self._client.wait_for_workers(1, timeout=PATIENCE)
        found = self._client.run(unfit, self._expected, self._sandboxed, on_error="return")
        reasons = {address: str(answer) for address, answer in found.items() if answer}
        return [address for address in found if address not in reasons], reasons

    def _watch(self) -> None:
        """Give up once there has been no worker for a while, instead of waiting for ever."""
        last_seen = time.monotonic()
        while not self._over.wait(2):
            if self._client.ncores():
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > PATIENCE:
                self._executor.shutdown(wait=False)
                return


def unfit(expected: tuple[str, dict[str, str]], sandboxed: bool) -> str:
    """Why this machine must not grade, "" if it may: it has no sandbox, or other graders than the one that asks."""
    if sandboxed and (why := sandbox.problem()):
        return f"it runs no submission without a sandbox ({why})"
    if (graders(), environment()) != expected:
        return (
            f"its graders, course.toml or versions ({environment()}) are not those of the machine that asks"
        )
    return ""


def _if_fit(
    expected: tuple[str, dict[str, str]], sandboxed: bool, call: Callable[..., Any], *args: Any
) -> Any:
    """On a worker: the call, unless this worker must not grade. One may have joined the cluster later."""
    if why := unfit(expected, sandboxed):
        raise ValueError(why)
    return call(*args)


@contextlib.contextmanager
def pool(jobs: int, address: str | None, sandboxed: bool) -> Iterator[Executor]:
    """Threads here, or where an address is given the workers of that Dask scheduler.

    Raises ValueError where no scheduler answers, and where none of its workers can grade.
    """
    with contextlib.ExitStack() as stack:
        found: Executor = (
            DaemonThreads(jobs)
            if address is None
            else Cluster(stack.enter_context(_client(address)), sandboxed)
        )
        try:
            yield found
        finally:
            found.shutdown(wait=False, cancel_futures=True)


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "--dask needs Dask's package distributed: pip install 'moe-course[cluster]'"
        ) from None
    try:
        return Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ValueError(f"--dask {address}: no scheduler answers there ({error})") from None


def limits_elsewhere(unsafe: bool) -> Limits | None:
    """The walls that workers on other machines put up; this machine needs no sandbox of its own."""
    return None if unsafe else Limits()
