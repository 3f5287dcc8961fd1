"""Which system calls a submission may make: a filter that the kernel runs before each of them (seccomp).

The walls of a sandbox are built from namespaces, and a few system calls lead past namespaces: kernel keyrings and
locks on shared files would let two submissions talk to each other; nested user namespaces and io_uring are where
holes in the kernel are found. No exercise needs any of these, so the filter refuses them. Everything else passes.

The filter is a program for the kernel's small virtual machine, "classic BPF" (man 2 seccomp): a list of instructions
of 8 bytes each, (code, jump if true, jump if false, constant), which look at the number and the arguments of a call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, ARGUMENTS = 0, 4, 16  # where struct seccomp_data has them
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
X32 = 0x40000000  # x86-64's second set of system calls, which programs of today do not use
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWUSER and its relatives
JOIN_SESSION_KEYRING = 1

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # by the names of `uname -m`; <linux/audit.h>
NUMBERS = {  # of each call on x86_64 and aarch64; None where there is none
    "fcntl": (72, 25),
    "flock": (73, 32),
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "socket": (41, 198),
    # keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # large and seldom used parts of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # files by number, and watching what others do with shared files
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    # the machine itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
SOME_ARGUMENTS = (
    "fcntl",
    "clone",
    "ioctl",
    "keyctl",
    "personality",
    "socket",
)  # what depends on the arguments
MISSING = ("clone3", "flock", "io_uring_setup")  # said to be missing, so that libraries take the other way
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all of a network namespace's own
SPYING = (5, 36, 1024, 1025, 1026)  # fcntl: F_GETLK, F_OFD_GETLK, F_SETLEASE, F_GETLEASE, F_NOTIFY
TYPING = (0x5412, 0x541C)  # ioctl: TIOCSTI and TIOCLINUX put characters into a terminal's input

Instruction = tuple[int, int, int, int]


def program(machine: str = platform.machine()) -> bytes:
    """The filter for a machine, as the kernel takes it. Raises ValueError where its numbers are not known here."""
    if machine not in MACHINES:
        raise ValueError(f"no filter of system calls for {machine}: known are {', '.join(MACHINES)}")
    steps: list[Instruction] = [
        (LOAD, 0, 0, MACHINE),
        (JUMP_EQUAL, 1, 0, MACHINES[machine]),
        (RETURN, 0, 0, KILL),  # 32-bit calls on a 64-bit machine have other numbers
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        steps += [(JUMP_AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for name in NUMBERS:
        if (number := call_number(name, machine)) is not None:
            checks = _checks(name)
            steps += [(JUMP_EQUAL, 0, len(checks), number), *checks]
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _checks(name: str) -> list[Instruction]:
    """What follows when the call `name` is made; ends with a return on every path."""
    refused = (RETURN, 0, 0, ERROR | (errno.ENOSYS if name in MISSING else errno.EPERM))
    allowed = (RETURN, 0, 0, ALLOW)
    if name not in SOME_ARGUMENTS:
        return [refused]
    if name == "clone":
        return [_argument(0), (JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES), refused, allowed]
    if name == "keyctl":  # a fresh keyring without a name; one with a name could be joined by others
        fresh = [(_argument(0), JOIN_SESSION_KEYRING), (_argument(1), 0), (_argument(1, upper=True), 0)]
        return [step for load, value in fresh for step in (load, (JUMP_EQUAL, 1, 0, value), refused)] + [
            allowed
        ]
    if name == "personality":  # ordinary Linux, or the question which one it is
        return [_argument(0), (JUMP_EQUAL, 2, 0, 0), (JUMP_EQUAL, 1, 0, 0xFFFFFFFF), refused, allowed]
    if name == "socket":
        other = (RETURN, 0, 0, ERROR | errno.EAFNOSUPPORT)
        known = [(JUMP_EQUAL, len(FAMILIES) - place, 0, value) for place, value in enumerate(FAMILIES)]
        return [_argument(0), *known, other, allowed]
    values = SPYING if name == "fcntl" else TYPING
    known = [(JUMP_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(1), *known, allowed, refused]


def _argument(place: int, upper: bool = False) -> Instruction:
    """Load the lower (or upper) 32 bits of an argument; both machines have the lower ones first."""
    return LOAD, 0, 0, ARGUMENTS + 8 * place + (4 if upper else 0)


def call_number(name: str, machine: str = platform.machine()) -> int | None:
    """The number of a system call on a machine, None where it has no such call."""
    return NUMBERS[name][list(MACHINES).index(machine)]


def as_file() -> int:
    """A descriptor from which the filter can be read; the caller closes it."""
    read, write = os.pipe()
    with open(write, "wb") as file:
        file.write(program())
    return read


def fresh_keyring() -> None:
    """Leave the session keyring of whoever started this process, and what can be found through it.

    Raises OSError where the kernel has keyrings and refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if (
        libc.syscall(ctypes.c_long(call_number("keyctl") or 0), JOIN_SESSION_KEYRING, ctypes.c_void_p(None))
        == -1
    ):
        code = ctypes.get_errno()
        if code != errno.ENOSYS:
            raise OSError(code, f"no fresh keyring: {os.strerror(code)}")
