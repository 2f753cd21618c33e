"""The sandbox from outside: code is run, or held to tests, in processes of its own, and all of them are ended.

What code does there is shut off by `models.sandbox.walls`; a process that can't shut it off runs nothing. Time on the
wall and output are limited from here. Tests run in another process than the code they test, with a line between them
that carries values alone (`models.sandbox.wire`), and the verdict comes by a channel that only theirs has. So nothing
that the code does to its own interpreter, its asserts, its builtins, its exit, its output, makes a test pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

from datalake.errors import UserError

_INSIDE = Path(__file__).with_name("inside.py")
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the same code gives the same output each time
    "PYTHONUNBUFFERED": "1",  # what was printed before an end is kept
}
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What code may use. `unshielded` runs it even where files, network or processes can't be shut off: code that one
    trusts alone."""

    seconds: float = 10.0
    memory_mb: int = 1024
    output_kb: int = 64
    files_mb: int = 16
    unshielded: bool = False


@dataclass(frozen=True, slots=True)
class Guards:
    """What is shut off for code in the sandbox, and by which walls."""

    files: bool
    network: bool
    processes: bool
    walls: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """What isn't shut off."""
        return [name for name in ("files", "network", "processes") if not getattr(self, name)]


@dataclass(slots=True)
class Ran:
    """What became of a program. state: `ended` (by itself), or the limit that ended it: `time`, `output`."""

    state: str
    code: int  # as a shell has it: 0 is success, 128 + n a signal
    output: str
    errors: str

    @property
    def error(self) -> str:
        """The last line that it wrote of an error; empty where all went well."""
        if self.state != "ended":
            return f"it was ended at its limit of {self.state}"
        lines = self.errors.strip().splitlines()
        return "" if not self.code else lines[-1] if lines else f"it ended with code {self.code}"


@dataclass(slots=True)
class Verdict:
    """The tests that code passed. `whole`: all of them were run; `why`: what the first failure said."""

    passed: int = 0
    failed: int = 0
    whole: bool = False
    why: str = ""

    @property
    def right(self) -> bool:
        """Whether there were tests, and the code passed all."""
        return self.whole and self.passed > 0 and not self.failed

    @property
    def share(self) -> float:
        """The share of the tests that it passed; 0 where they couldn't all be run."""
        return self.passed / (self.passed + self.failed) if self.whole and self.passed else 0.0


@cache
def guards() -> Guards:
    """What this machine can shut off, as tried from inside."""
    with _started({"role": "run", "code": "", "show": False}, Limits(unshielded=True)) as one:
        _watch([one], 60.0)
        return one.guards or Guards(False, False, False, ())


def run(code: str, stdin: str = "", limits: Limits = Limits(), show: bool = False) -> Ran:
    """Runs a program. With `show` what its last line gives is printed, as in a console.

    Raises:
        UserError: where the sandbox has no walls here, and `limits` doesn't do without.
    """
    with _started({"role": "run", "code": code, "show": show}, limits, stdin=stdin) as one:
        state = _watch([one], limits.seconds)
        one.check()
        output, errors = (bytes(held).decode("utf-8", "replace") for held in (one.output, one.errors))
        return Ran(state, one.code, output, errors)


def verify(
    code: str,
    tests: Sequence[str],
    entry: str = "",
    before: str = "",
    limits: Limits = Limits(),
) -> Verdict:
    """Holds code to tests. A test is an `assert` of a source, a function `test...`, a method of a `unittest.TestCase`,
    or `check(candidate)`, which is handed what the code calls `entry`.

    Tests see what the code defines by the names they use; they get plain values from it, and can call it with such.
    before: what stands before both, such as a prompt's imports and helpers; tests have their own copy of it.

    Raises:
        UserError: as `run`; or where the tests are no Python.
    """
    for source in tests:
        try:
            compile(source, "<tests>", "exec")
        except (SyntaxError, ValueError) as error:
            raise UserError(f"the tests are no Python ({error}): correct them") from None
    calls, replies, told = os.pipe(), os.pipe(), os.pipe()
    job = {"tests": list(tests), "entry": entry, "before": before}
    pipes = {*calls, *replies, *told}

    def release(*numbers: int) -> None:
        for number in pipes.intersection(numbers):
            pipes.remove(number)
            os.close(number)

    try:
        with contextlib.ExitStack() as stack:
            under = {"role": "code", "code": code, "before": before}
            one = stack.enter_context(_started(under, limits, line=(calls[0], replies[1])))
            release(calls[0], replies[1])
            judge = {"role": "tests", "verdict": told[1], **job}
            other = stack.enter_context(_started(judge, limits, line=(replies[0], calls[1]), also=told[1]))
            release(replies[0], calls[1], told[1])
            said = bytearray()
            state = _watch([other, one], limits.seconds, {told[0]: said})
            for process in (one, other):
                process.check()
        return _verdict(said, state)
    finally:
        release(*pipes)


def _verdict(said: bytearray, state: str) -> Verdict:
    verdict = Verdict()
    for line in said.splitlines():
        result = json.loads(line)
        if "ended" in result:
            verdict.whole = True
        elif result["passed"]:
            verdict.passed += 1
        else:
            verdict.failed += 1
            verdict.why = verdict.why or result["why"]
    if not verdict.whole:
        ended = f"it was ended at its limit of {state}" if state != "ended" else "the tests broke"
        verdict.why = verdict.why or ended
    return verdict


@dataclass(slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    status: IO[bytes]
    limits: Limits
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)

    @property
    def code(self) -> int:
        code = self.process.wait()
        return 128 - code if code < 0 else code if code <= 192 else 128 + 256 - code

    @property
    def guards(self) -> Guards | None:
        """What it said of itself before it ran anything; None where it came to say nothing."""
        self.status.seek(0)
        said = self.status.read()
        if not said:
            return None
        shut: dict[str, bool] = json.loads(said)
        stands = tuple(name for name in ("landlock", "seccomp", "namespaces") if shut[name])
        return Guards(shut["files"], shut["network"], shut["processes"], stands)

    def check(self) -> None:
        """Raises UserError where it had to refuse."""
        shut = self.guards
        if shut and shut.missing and not self.limits.unshielded:
            raise UserError(
                f"the sandbox can't shut off {' and '.join(shut.missing)} here, so it runs no code: use Linux with "
                "Landlock and seccomp (`headwater doctor` says what there is), or allow it with `unshielded: true`"
            )


@contextlib.contextmanager
def _started(
    job: dict[str, Any], limits: Limits, stdin: str = "", line: tuple[int, int] = (-1, -1), also: int = -1
) -> Iterator[_Process]:
    """A process in the sandbox; it and all that it started are gone at the end."""
    packages = _packages()
    with contextlib.ExitStack() as stack:
        # Code may leave there what can't be removed at once.
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="headwater-sandbox-", ignore_cleanup_errors=True)
        )
        job_file, status = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        room = [
            folder,
            _readable(packages),
            max(1, int(limits.seconds + 1)),
            limits.memory_mb << 20,
            limits.files_mb << 20,
        ]
        whole = {**job, "room": room, "packages": packages, "unshielded": limits.unshielded}
        job_file.write(json.dumps(whole).encode())
        job_file.seek(0)
        Path(folder, "stdin").write_bytes(stdin.encode("utf-8", "replace"))
        fed = stack.enter_context(Path(folder, "stdin").open("rb"))
        numbers = [job_file.fileno(), status.fileno(), *line]
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-B", str(_INSIDE), *map(str, numbers)],
            stdin=fed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[number for number in (*numbers, also) if number >= 0],
            env={**_ENVIRONMENT, "HOME": folder, "TMPDIR": folder},
            cwd=folder,
            start_new_session=True,
        )
        try:
            yield _Process(process, status, limits)
        finally:
            _end(process)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _watch(processes: Sequence[_Process], seconds: float, more: dict[int, bytearray] | None = None) -> str:
    """Reads what processes write until the first of them has ended, or the time or their output is up: `ended`, `time`
    or `output`. All are ended then. more: other files to read to the end, and where that goes."""
    until = time.monotonic() + seconds
    most = processes[0].limits.output_kb << 10
    state = "ended"
    with selectors.DefaultSelector() as selector:
        for one in processes:
            for stream, held in ((one.process.stdout, one.output), (one.process.stderr, one.errors)):
                if stream is not None:
                    selector.register(stream.fileno(), selectors.EVENT_READ, (held, one is processes[0]))
        for number, held in (more or {}).items():
            selector.register(number, selectors.EVENT_READ, (held, True))
        while any(key.data[1] for key in selector.get_map().values()):
            left = until - time.monotonic()
            if left <= 0:
                state = "time"
                break
            for key, _ in selector.select(left):
                block = os.read(key.fd, _BLOCK)
                if not block:
                    selector.unregister(key.fd)
                    continue
                held = key.data[0]
                held.extend(block)
                if len(held) > most and held not in (more or {}).values():
                    del held[most:]
                    state = "output"
            if state == "output":
                break
        if state == "ended" and more is None:
            try:
                processes[0].process.wait(max(until - time.monotonic(), 0.001))
            except subprocess.TimeoutExpired:
                state = "time"
    for one in processes:
        _end(one.process)
    return state


@cache
def _packages() -> list[str]:
    """Folders of installed packages, which code may import from."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages") and Path(path).is_dir()]


def _readable(packages: list[str]) -> list[str]:
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib", *packages}
    paths |= {"/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64"}
    return sorted(path for path in paths if path and Path(path).is_dir())
