"""What the kernel refuses to a submission, tried from inside; and what it must go on doing for honest code."""

import errno
import os
import struct
import textwrap

import pytest
from graders.probes import call

from moe_course.grading.judge.subject import WorkerSubject
from moe_course.grading.worker import sandboxed, syscalls
from moe_course.grading.worker.sandbox import Limits

TRY = textwrap.dedent("""
    import ctypes, errno, fcntl, os, socket, torch
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def attempt(number, *args):
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args))
        return "ok" if result != -1 else errno.errorcode[ctypes.get_errno()]

    def attempts(calls):
        return [attempt(*call) for call in calls]

    def keys():
        found = []
        for name in ("keys", "key-users"):
            try:
                found += open(f"/proc/{name}").readlines()
            except OSError:
                pass
        return found

    def named_keyring():
        name = ctypes.create_string_buffer(b"meet me here")
        return attempt(KEYCTL, 1, ctypes.addressof(name))

    def locks():
        '''What a lock on a file that all submissions see tells them.'''
        told = []
        with open(torch.__file__) as file:
            for lock in (lambda: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB),
                         lambda: fcntl.fcntl(file, fcntl.F_GETLK, bytes(32)),
                         lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
                         lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)):
                try:
                    lock()
                    told.append("ok")
                except OSError as error:
                    told.append(errno.errorcode[error.errno])
        return told

    def families():
        allowed = []
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 40, 38, 17, 31):
            try:
                socket.socket(family, socket.SOCK_STREAM if family != 38 else socket.SOCK_SEQPACKET).close()
                allowed.append(int(family))
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    allowed.append((family, errno.errorcode[error.errno]))
        return allowed

    def honest():
        '''Threads, processes, a database, a lock between threads, memory shared with a child.'''
        import multiprocessing, sqlite3, subprocess, tempfile, threading, asyncio, mmap
        from concurrent.futures import ThreadPoolExecutor
        done = []
        with ThreadPoolExecutor(2) as pool:
            done.append(sum(pool.map(abs, [-1, -2])))
        with tempfile.NamedTemporaryFile(suffix=".db") as file, sqlite3.connect(file.name) as base:
            base.execute("create table t(x)")
            base.execute("insert into t values (4)")
            base.commit()
            done.append(base.execute("select x from t").fetchone()[0])
        done.append(int(subprocess.run(["echo", "5"], capture_output=True, text=True).stdout))
        queue = multiprocessing.get_context("fork").SimpleQueue()
        child = multiprocessing.get_context("fork").Process(target=queue.put, args=(6,))
        child.start()
        done.append(queue.get())
        child.join()
        async def seven():
            await asyncio.sleep(0)
            return 7
        done.append(asyncio.run(seven()))
        torch.set_num_threads(2)
        done.append(float(torch.ones(300, 300).matmul(torch.ones(300, 300))[0, 0]))
        done.append(int(torch.ones(3).share_memory_().sum()))
        return done
""").replace(
    "KEYCTL", str(syscalls.call_number("keyctl")) if os.uname().machine in syscalls.MACHINES else "0"
)

ALLOWED_SOMETIMES = (*syscalls.SOME_ARGUMENTS, *syscalls.MISSING)
REFUSED = [name for name in syscalls.NUMBERS if name not in ALLOWED_SOMETIMES]


def calls():
    """Every call that is refused whatever its arguments, and what the others must not be asked for."""
    numbers = {name: syscalls.call_number(name) for name in syscalls.NUMBERS}
    always = [[numbers[name], 0, 0, 0] for name in REFUSED if numbers[name] is not None]
    missing = [[numbers[name], 0, 0, 0] for name in syscalls.MISSING]
    user_namespace, sigchld = 0x10000000, 17
    some = [
        [numbers["clone"], user_namespace | sigchld, 0, 0, 0, 0],
        [numbers["keyctl"], 0, -3, 1],  # which is the session keyring
        [numbers["keyctl"], 3, -4],  # drop the user keyring
        [numbers["personality"], 0x0040000],  # no random addresses
        [numbers["ioctl"], 0, 0x5412, 0],
    ]
    return always, missing, some


@pytest.fixture(scope="module", params=["forked", "started"])
def inside(needs_sandbox, request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "started":
            patch.setattr(sandboxed, "_fork_server", lambda judge: None)
        with WorkerSubject([TRY], Limits()) as subject:

            def ask(name, *args):
                out = subject.run(call, name, *args)
                assert out.error is None, out.error
                return out.value

            yield ask


def test_what_no_exercise_needs_is_refused(inside):
    always, missing, some = calls()
    assert set(inside("attempts", always)) == {"EPERM"}
    assert set(inside("attempts", missing)) == {"ENOSYS"}
    assert set(inside("attempts", some)) == {"EPERM"}


def test_keyrings_are_nobodys_but_its_own(inside):
    assert inside("keys") == []
    assert inside("named_keyring") == "EPERM"
    fresh = [[syscalls.call_number("keyctl"), syscalls.JOIN_SESSION_KEYRING, 0]]
    assert inside("attempts", fresh) == ["ok"]


def test_shared_files_carry_no_messages(inside):
    flock, look, lock, lease = inside("locks")
    assert (flock, look, lease) == ("ENOSYS", "EPERM", "EPERM")
    assert lock == "EBADF", "a lock that others would see needs a file that may be written to"


def test_only_sockets_that_a_network_namespace_holds(inside):
    assert inside("families") == [1, 2, 10]


def test_honest_code_notices_nothing(inside):
    assert inside("honest") == [3, 4, 5, 6, 7, 300.0, 3]


# ---------------------------------------------------------------------------------------------- the filter itself


def verdict(machine, arch, number, args=()):
    """What the filter answers, worked out as the kernel does (man 2 seccomp)."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *args, *[0] * (6 - len(args)))
    steps = list(struct.iter_unpack("=HBBI", syscalls.program(machine)))
    value, place = 0, 0
    while True:
        code, yes, no, constant = steps[place]
        place += 1
        if code == syscalls.LOAD:
            (value,) = struct.unpack_from("=I", data, constant)
        elif code == syscalls.RETURN:
            return constant
        else:
            test = {
                syscalls.JUMP_EQUAL: value == constant,
                syscalls.JUMP_AT_LEAST: value >= constant,
                syscalls.JUMP_ANY_BIT: bool(value & constant),
            }[code]
            place += yes if test else no


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_the_filter_on_both_machines(machine):
    """Worked out, because a test runs on one machine only; on this one the kernel confirms it above."""
    arch = syscalls.MACHINES[machine]
    refused, missing = syscalls.ERROR | errno.EPERM, syscalls.ERROR | errno.ENOSYS

    def answer(name, *args):
        return verdict(machine, arch, syscalls.call_number(name, machine), args)

    assert {answer(name) for name in REFUSED if syscalls.call_number(name, machine) is not None} == {refused}
    assert {answer(name) for name in syscalls.MISSING} == {missing}
    assert answer("keyctl", 1, 0) == syscalls.ALLOW
    assert answer("keyctl", 1, 1 << 40) == answer("keyctl", 1, 4096) == answer("keyctl", 11, 0) == refused
    assert answer("clone", 0x01200011) == syscalls.ALLOW, "how a process is forked"
    assert answer("clone", 0x003D0F00) == syscalls.ALLOW, "how a thread is made"
    assert {answer("clone", 1 << bit) for bit in (17, *range(25, 31))} == {refused}
    assert {answer("fcntl", 3, command) for command in syscalls.SPYING} == {refused}
    assert {answer("fcntl", 3, command) for command in (0, 1, 2, 3, 4, 6, 7, 1030)} == {syscalls.ALLOW}
    assert {answer("socket", family) for family in syscalls.FAMILIES} == {syscalls.ALLOW}
    assert {answer("socket", family) for family in (0, 17, 38, 40)} == {syscalls.ERROR | errno.EAFNOSUPPORT}
    assert {answer("personality", value) for value in (0, 0xFFFFFFFF)} == {syscalls.ALLOW}
    assert {answer("personality", value) for value in (8, 0x40000)} == {refused}
    assert {answer("ioctl", 0, command) for command in syscalls.TYPING} == {refused}
    assert answer("ioctl", 0, 0x5413) == syscalls.ALLOW
    assert verdict(machine, arch, 9999) == syscalls.ALLOW
    assert verdict(machine, 0x40000003, 4) == syscalls.KILL, "a 32-bit program"
    others = {"x86_64": syscalls.KILL, "aarch64": syscalls.ALLOW}
    assert verdict(machine, arch, syscalls.X32 | 5) == others[machine]


def test_an_unknown_machine_has_no_filter():
    with pytest.raises(ValueError, match="riscv64"):
        syscalls.program("riscv64")
