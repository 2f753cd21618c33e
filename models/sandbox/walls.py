"""The walls of the sandbox, raised by a process around itself before it runs anybody's code. Linux; needs no root.

- *limits* (setrlimit): address space, processor time, size of a file, open files, no core.
- *seccomp* (a filter of system calls): those of the list below are allowed and nothing else. No sockets but a pair
  within the process, no other process, none made and none signalled, no owner, mode or time of a file changed.
- *landlock* (kernel 5.13 on): files outside the folder can't be opened, but for the libraries of Python and system.
- *namespaces* (where a user may have them): no network, no other processes to be seen, a folder of limited size.

Seccomp and Landlock are what shuts off network, processes and files; namespaces are a second wall behind them, and
audit hooks, which code can get around, say in clear words what isn't allowed. Standard library alone: it runs without
site-packages. Numbers of system calls: asm/unistd_64.h and asm-generic/unistd.h of Linux 6.1; the filter's form:
Documentation/userspace-api/seccomp_filter.rst; Landlock's: Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Room(NamedTuple):
    """Where code runs and what it may use. folder: the one it may write to; readable: folders it may read."""

    folder: str
    readable: list[str]
    seconds: int  # of processor time
    memory: int  # bytes
    files: int  # bytes


# name: (x86_64, aarch64), the busiest first. None: that machine has no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "futex": (202, 98), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214),
    "openat": (257, 56), "close": (3, 57), "newfstatat": (262, 79), "fstat": (5, 80), "lseek": (8, 62),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "madvise": (28, 233), "mprotect": (10, 226),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "stat": (4, None),
    "open": (2, None), "lstat": (6, None), "poll": (7, None), "pread64": (17, 67), "pwrite64": (18, 68),
    "readv": (19, 65), "writev": (20, 66), "access": (21, None), "pipe": (22, None), "pipe2": (293, 59),
    "select": (23, None), "pselect6": (270, 72), "ppoll": (271, 73), "sched_yield": (24, 124), "mremap": (25, 216),
    "msync": (26, 227), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pause": (34, None),
    "nanosleep": (35, 101), "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172),
    "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204),
    "getpeername": (52, 205), "setsockopt": (54, 208), "getsockopt": (55, 209), "exit": (60, 93), "wait4": (61, 260),
    "uname": (63, 160), "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "creat": (85, None), "unlink": (87, None), "unlinkat": (263, 35), "readlink": (89, None),
    "readlinkat": (267, 78), "umask": (95, 166), "gettimeofday": (96, 169), "getrlimit": (97, 163),
    "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "getpgrp": (111, None), "getpgid": (121, 155),
    "getsid": (124, 156), "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150),
    "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
    "statfs": (137, 43), "fstatfs": (138, 44), "arch_prctl": (158, None), "gettid": (186, 178), "time": (201, None),
    "sched_getaffinity": (204, 123), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "set_tid_address": (218, 96), "restart_syscall": (219, 128), "fadvise64": (221, 223),
    "clock_getres": (229, 114), "exit_group": (231, 94), "waitid": (247, 95), "faccessat": (269, 48),
    "faccessat2": (439, 439), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "fallocate": (285, 47),
    "eventfd2": (290, 19), "getcpu": (309, 168), "getrandom": (318, 278), "membarrier": (324, 283),
    "statx": (332, 291), "rseq": (334, 293), "close_range": (436, 436),
}  # fmt: skip
_CLONE, _KILL, _TGKILL, _SOCKETPAIR, _PRLIMIT, _IOCTL, _FCNTL, _CLONE3, _OPENAT2 = (
    (56, 220), (62, 129), (234, 131), (53, 199), (302, 261), (16, 29), (72, 25), (435, 435), (437, 437),
)  # fmt: skip
_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_X32 = 0x40000000  # the other calls of an x86_64 kernel begin here

_CLONE_THREAD, _SOCK_STREAM, _FIONBIO = 0x10000, 1, 0x5421
_FCNTL_OWN = 0x407  # bits of the commands about descriptors, flags and locks, not of whom a signal goes to (8 to 15)
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_PDEATHSIG, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 22, 38  # of prctl
_MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x4000, 0x40000, 2, 4


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def limits(room: Room) -> None:
    """Sets the limits of this process and of all it starts."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, room.seconds),
        (resource.RLIMIT_AS, room.memory),
        (resource.RLIMIT_FSIZE, room.files),
        (resource.RLIMIT_NOFILE, 64),
    ):
        with contextlib.suppress(ValueError, OSError):  # one that can't be set has a lower hard limit
            resource.setrlimit(what, (most, most))


def follow_parent() -> None:
    """This process is killed when its parent ends, however that ends."""
    _libc().prctl(_PDEATHSIG, 9, 0, 0, 0)


def namespaces(room: Room) -> bool:
    """Goes on as the grandchild of this process in namespaces of its own, where these are allowed; else returns False.

    This process and its child only wait: they end as the grandchild does.
    """
    libc, user, group = _libc(), os.getuid(), os.getgid()
    if libc.unshare(_NEWUSER | _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET):
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text)
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    size = f"size={room.files},nr_inodes=4096,mode=700".encode()
    libc.mount(b"tmpfs", room.folder.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, size)
    for _ in range(2):  # the first is the namespace's own init, whose end is the end of all in it
        if child := os.fork():
            os.closerange(3, 1 << 20)  # this one's ends of the lines: they end with the code's
            status = os.waitpid(child, 0)[1]
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        follow_parent()
    return True


def landlock(room: Room) -> bool:
    """Shuts off the files outside the room; False where this kernel can't."""
    libc = _libc()
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return False
    every = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    handled = struct.pack("QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    handled = handled[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(444, handled, len(handled), 0)
    if ruleset < 0:
        return False
    execute, write, read, folders, truncate = 1, 2, 4, 8, 1 << 14
    devices = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/ld.so.cache")
    sockets_and_devices = 1 << 6 | 1 << 9 | 1 << 11
    rules = [(room.folder, every & ~(sockets_and_devices | execute))]
    rules += [(path, read | folders) for path in [*room.readable, "/usr/share/zoneinfo"]]
    rules += [(path, (read | write | truncate if path == "/dev/null" else read) & every) for path in devices]
    for path, access in rules:
        with contextlib.suppress(OSError):
            place = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
            libc.syscall(445, ruleset, 1, struct.pack("=Qi", access, place), 0)
            os.close(place)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    closed = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return closed


def seccomp() -> bool:
    """Allows this process the system calls of the list alone; False where this machine or kernel can't."""
    if platform.machine() not in _ARCHES:
        return False
    column, arch = _ARCHES[platform.machine()]
    program = b"".join(_filter(column, arch))
    code = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    libc = _libc()
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.prctl(_SECCOMP, 2, described, 0, 0) == 0)


def _filter(column: int, arch: int) -> Iterator[bytes]:
    """The filter, instruction by instruction (struct sock_filter: code, jumps where true and false, constant)."""
    load, equal, above, masked, answer = 0x20, 0x15, 0x35, 0x54, 0x06
    allow, kill, deny = 0x7FFF0000, 0x80000000, 0x00050000

    def op(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, true, false, k)

    yield op(load, 4)  # the architecture
    yield op(equal, arch, 1)
    yield op(answer, kill)
    yield op(load, 0)  # the call's number
    yield op(above, _X32, 0, 1)
    yield op(answer, kill)
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            yield op(equal, number, 0, 1)
            yield op(answer, allow)
    # Allowed with one argument alone: (call, which argument, the bits looked at, what they must be, else the error).
    own, every = os.getpid(), 0xFFFFFFFF
    for numbers, argument, bits, wanted, error in (
        (_CLONE, 0, _CLONE_THREAD, _CLONE_THREAD, errno.EPERM),
        (_KILL, 0, every, own, errno.EPERM),
        (_TGKILL, 0, every, own, errno.EPERM),
        (_SOCKETPAIR, 1, 0xF, _SOCK_STREAM, errno.EPERM),
        (_PRLIMIT, 0, every, 0, errno.EPERM),
        (_IOCTL, 1, every, _FIONBIO, errno.ENOTTY),
        (_FCNTL, 1, every & ~_FCNTL_OWN, 0, errno.EPERM),
    ):
        yield op(equal, numbers[column], 0, 5)
        yield op(load, 16 + 8 * argument)
        yield op(masked, bits)
        yield op(equal, wanted, 0, 1)
        yield op(answer, allow)
        yield op(answer, deny | error)
    for numbers in (_CLONE3, _OPENAT2):  # libraries do without where they aren't there
        yield op(equal, numbers[column], 0, 1)
        yield op(answer, deny | errno.ENOSYS)
    yield op(answer, deny | errno.EPERM)


def no_capabilities() -> None:
    """Gives up what root, here or in a namespace, may do beyond other users."""
    _libc().capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6))


def hooks(room: Room, files: bool) -> None:
    """Says in words what isn't allowed. `files`: opened ones too, where no wall shuts them off."""
    nothing = {
        **dict.fromkeys(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"), "network"),
        **dict.fromkeys(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"), "other programs"),
        **dict.fromkeys(("os.fork", "os.forkpty"), "other processes"),
    }
    may_read = tuple(os.path.join(path, "") for path in [room.folder, *room.readable])  # noqa: PTH118

    def hook(event: str, arguments: Sequence[object]) -> None:
        if event in nothing:
            raise PermissionError(f"the sandbox has no {nothing[event]}")
        if files and event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(may_read) and path != "/dev/null":
                raise PermissionError(f"the sandbox has no file {path!r}")

    sys.addaudithook(hook)


def raise_walls(room: Room) -> dict[str, bool]:
    """Raises all walls that this machine allows, around this process or one that goes on in its place.

    Returns what is shut off (`files`, `network`, `processes`, as tried from inside) and which walls stand.
    """
    limits(room)
    linux = sys.platform == "linux"
    if linux:
        follow_parent()
    spaces = linux and namespaces(room)
    if linux:
        no_capabilities()
    stands = {"namespaces": spaces, "landlock": linux and landlock(room), "seccomp": linux and seccomp()}
    shut = {"files": stands["landlock"] and _fails(os.listdir, "/"), "network": False, "processes": False}
    if linux:
        libc = _libc()
        shut["network"] = all(libc.socket(family, kind, 0) < 0 for family in (1, 2, 10) for kind in (1, 2))
        shut["processes"] = stands["seccomp"] and _fails(os.kill, os.getppid() or 1, 0)
    hooks(room, files=not shut["files"])
    return {**shut, **stands}


def _fails(call: object, *arguments: object) -> bool:
    try:
        call(*arguments)  # type: ignore[operator]
    except OSError:
        return True
    return False
