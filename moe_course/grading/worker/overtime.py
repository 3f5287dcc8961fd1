"""Stopping code that runs too long where no alarm can: on Windows, and in another thread than the main one."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watched(
    is_late: Callable[[], bool], every: float, error: type[BaseException], said: str
) -> Iterator[None]:
    """Raise `error` with the message `said` in the code of the block whenever `is_late` says so.

    A second thread asks it, every so many seconds. Python raises the error between two steps of its own, so a call
    that does not return to it, such as a long sleep, ends first.
    """
    thread, over = ctypes.c_ulong(threading.get_ident()), threading.Event()
    late = type(error.__name__, (error,), {"__init__": lambda self: error.__init__(self, said)})

    def watch() -> None:
        while not over.wait(every):
            if is_late() and not over.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(late))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        try:
            over.set()
        finally:  # the error may come in this very line
            over.set()
            watcher.join()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that is on its way comes no more
