"""A process that ends with the one that started it, also where that one is killed and can tidy nothing up."""

import ctypes
import os
import signal
import sys

SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with(parent: int) -> None:
    """Let the kernel end this process when its parent, whose process id is given, has ended. Linux only.

    Call it in the child, at once. It is the thread that started the child which counts, so that thread must outlive
    the work. Elsewhere nothing happens: a child that runs a loop without end then outlives a parent that was killed.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before the kernel knew
        os._exit(1)
