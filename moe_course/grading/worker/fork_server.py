"""A process that has imported PyTorch once and forks workers into sandboxes that stand ready.

    python -s -P fork_server.py MODULE...        (with a socket as standard input)

Importing PyTorch is what starting a worker costs. This process does it before any learner's code exists, runs none
itself and knows nothing of the course: no test, no answer, no submission. For each order it forks; the child joins
the namespaces that bubblewrap has built, gives up every privilege, checks that it has, and only then imports the
worker from inside. It ends when the judge does.

An order is a JSON object {uid, limits, syscalls, arguments} with four descriptors: a pidfd of the sandbox's first
process, the worker's standard input and output, and a pipe for the worker's process id and, later, its exit code.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import socket
import sys
import tempfile
from typing import Any

NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, uts, ipc, pid, net
USER_NAMESPACE = 0x10000000
SET_DUMPABLE, SET_SECCOMP, CAPBSET_DROP, SET_NO_NEW_PRIVS, CAP_AMBIENT = 4, 22, 24, 38, 47  # <linux/prctl.h>
CLEAR_ALL, SECCOMP_FILTER = 4, 2
CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def main() -> None:
    orders = socket.socket(fileno=os.dup(0))
    with tempfile.TemporaryDirectory() as folder:  # Matplotlib lists the fonts there
        os.environ.update(HOME=folder, MPLCONFIGDIR=folder)
        for module in sys.argv[1:]:
            importlib.import_module(module)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("a thread is running: forked workers could hang")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children here
    orders.send(b"ready")
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, 1 << 16, 4)
        if not order:
            return
        if os.fork() == 0:
            try:
                enter(json.loads(order), *descriptors)
            finally:
                os._exit(70)
        for descriptor in descriptors:
            os.close(descriptor)


def enter(order: dict, sandbox: int, requests: int, replies: int, status: int) -> None:
    """Join the sandbox and fork the worker there: a process id belongs to a namespace from its birth."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    flags = NAMESPACES | (USER_NAMESPACE if order["uid"] is None else 0)
    call(libc.setns, sandbox, flags)
    worker = os.fork()
    if worker:
        os.close(requests)
        os.close(replies)
        os.write(status, f"{worker}\n".encode())
        _, code = os.waitpid(worker, 0)
        os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
        os._exit(0)
    for descriptor, own in ((requests, 0), (replies, 1)):
        os.dup2(descriptor, own)
    os.closerange(3, 1 << 16)
    give_up_privileges(order["uid"], order["limits"], bytes.fromhex(order["syscalls"]))
    start(order["arguments"])


class Filter(ctypes.Structure):
    """struct sock_fprog: how the kernel takes a filter of system calls."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def give_up_privileges(uid: int | None, limits: dict, syscalls: bytes) -> None:
    """What `bwrap`, `setpriv` and `prlimit` do for a program that is started; exits where anything is left."""
    os.setsid()
    os.chdir("/tmp")
    for name, values in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), values)
    for capability in range(64):  # those that the kernel does not know are refused
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    call(libc.prctl, CAP_AMBIENT, CLEAR_ALL, 0, 0, 0)
    call(libc.capset, (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    call(libc.prctl, SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call(libc.prctl, SET_DUMPABLE, 1, 0, 0, 0)  # a change of user takes /proc/self away
    installed = Filter(len(syscalls) // 8, syscalls)  # an instruction has 8 bytes
    call(libc.prctl, SET_SECCOMP, SECCOMP_FILTER, ctypes.addressof(installed), 0, 0)
    with open("/proc/self/status", encoding="utf-8") as file:
        now = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    powers = [int(now[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
    walled = (now["NoNewPrivs"], now["Seccomp"]) == ("1", str(SECCOMP_FILTER))
    if any(powers) or not walled or (uid is not None and set(now["Uid"].split()) != {str(uid)}):
        os._exit(71)


def start(arguments: list) -> None:
    """Run the worker's module, from the sandbox's own files, which come first on the path."""
    os.environ.update(HOME="/tmp", MPLCONFIGDIR="/tmp/matplotlib")
    importlib.invalidate_caches()
    sys.argv[1:] = arguments
    importlib.import_module("moe_course.grading.worker.serve").main()
    os._exit(0)


def call(function: Any, *arguments: Any) -> None:
    """Call the C library; raises OSError where it says -1."""
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
