"""The sandbox: what code can't do there, the limits that end it, and tests that it can't pass but by being right."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from datalake.errors import UserError
from models.rl.rewards import Asked, RewardFunction, Rewards
from models.rl.rewards.unit_tests import code_of, correct, share
from models.sandbox import Limits, guards, outside, run, verify

pytestmark = pytest.mark.skipif(bool(guards().missing), reason=f"no sandbox here: {guards()}")
QUICK = Limits(seconds=20, output_kb=16, files_mb=1, memory_mb=400)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No process of the sandbox is there afterwards."""
    yield
    left = [p for p in psutil.Process().children(recursive=True) if str(outside._INSIDE) in p.cmdline()]
    assert not left


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret.txt"
    file.write_text("secret")
    return file


ESCAPES = {
    "a file of the system": "print(open('/etc/passwd').read())",
    "the user's home": "import os; print(os.listdir({home!r}))",
    "a file outside": "print(open({secret!r}).read())",
    "a file outside, by a link": "import os; os.symlink({secret!r}, 'a'); print(open('a').read())",
    "a file outside, by a hard link": "import os; os.link({secret!r}, 'a'); print(open('a').read())",
    "a file outside, by the parent folder": "import os; print(os.listdir('..'))",
    "a file outside, written": "open({secret!r}, 'w').write('x')",
    "a file outside, appended to": "open({secret!r}, 'a').write('x')",
    "a file outside, made": "open({secret!r} + '2', 'w').write('x')",
    "a file outside, removed": "import os; os.remove({secret!r})",
    "a file outside, moved": "import os; os.rename({secret!r}, 'a')",
    "a file outside, cut": "import os; os.truncate({secret!r}, 0)",
    "a file outside, its mode": "import os; os.chmod({secret!r}, 0)",
    "a file outside, its times": "import os; os.utime({secret!r}, (0, 0))",
    "a file outside, without Python's own checks": "import ctypes; c = ctypes.CDLL(None); "
    "f = c.open({secret!r}.encode(), 0); assert f >= 0, 'denied'",
    "the parent's environment": "import os; print(open(f'/proc/{{os.getppid()}}/environ').read())",
    "its own environment in /proc": "print(open('/proc/self/environ').read())",
    "processes": "import os; assert [p for p in os.listdir('/proc') if p.isdigit()]",
    "a connection": "import socket; socket.create_connection(('127.0.0.1', {port}), 5)",
    "a connection, without Python's own checks": "import ctypes; c = ctypes.CDLL(None); "
    "assert c.socket(2, 1, 0) >= 0, 'denied'",
    "a datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "a Unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "a name looked up": "import socket; socket.getaddrinfo('localhost', 80)",
    "another program": "import subprocess; subprocess.run(['/bin/sh', '-c', 'echo hi'], check=True)",
    "a shell": "import os; assert os.system('true') == 0, 'denied'",
    "itself as another program": "import os, sys; os.execv(sys.executable, ['python', '-c', 'print(1)'])",
    "another process": "import os; os.fork() or os._exit(0)",
    "another process, without Python's own checks": "import ctypes; c = ctypes.CDLL(None); "
    "n = c.fork(); n == 0 and c._exit(0); assert n > 0, 'denied'",
    "a pool of processes": "import multiprocessing as m; p = m.Process(target=print); p.start(); p.join()",
    "killing the parent": "import os; os.kill(os.getppid(), 9)",
    "killing all": "import os; os.kill(-1, 9)",
    "killing the init of its namespace": "import os; os.kill(1, 9)",
    "tracing the parent": "import ctypes, os; c = ctypes.CDLL(None); "
    "assert c.ptrace(16, os.getppid(), 0, 0) == 0, 'denied'",
    "a mount": "import ctypes; c = ctypes.CDLL(None); assert c.mount(b'proc', b'.', b'proc', 0, 0) == 0, 'denied'",
    "another namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0, 'denied'",
    "outliving its parent": "import ctypes; assert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0, 'denied'",
    "leaving its group": "import os; os.setsid()",
    "a signal to another, by a pipe": "import fcntl, os; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "a signal that kills, by a pipe": "import fcntl, os; fcntl.fcntl(os.pipe()[0], 10, 9)",
    "its own memory as a file": "open('/proc/self/mem', 'r+b')",
    "another's memory": "import ctypes, os; c = ctypes.CDLL(None); "
    "assert c.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0) >= 0, 'denied'",
    "a program in memory": "import os; os.memfd_create('x')",
    "another program, by a pickle": "import pickle, os; pickle.loads(b'cos\\nexecv\\n(V/bin/true\\n(lVx\\natR.')",
    "a process by its number": "import os; os.pidfd_open(os.getppid() or 1)",
    "an abstract socket": "import socket; socket.socket(socket.AF_UNIX).bind(chr(0) + 'x')",
    "a socket of any family": "import ctypes; c = ctypes.CDLL(None); "
    "assert any(c.socket(n, k, 0) >= 0 for n in range(46) for k in (1, 2, 3, 5)), 'denied'",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "the kernel's programs": "import ctypes; assert ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0, 'denied'",
    "io_uring": "import ctypes; assert ctypes.CDLL(None).syscall(425, 8, 0) >= 0, 'denied'",
    "its limits": "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)",
    "root's rights": "import os; os.setuid(0); os.setgroups([0]); assert 0, 'denied'",
    "the terminal": "open('/dev/tty', 'w').write('x')",
    "shared memory": "from multiprocessing.shared_memory import SharedMemory as S; S('x', create=True, size=9)",
    "a device": "import os; os.mknod('d', 0o600 | 0o020000, os.makedev(1, 3)); print(1)",
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


DENIED = ("denied", "permitted", "sandbox has no", "cross-device", "not allowed to raise")
EACH = """
import json
for what, code in json.loads({codes!r}).items():
    try:
        exec(code, {{"__name__": "__main__"}})
        said = "nothing stopped it"
    except BaseException as error:
        said = f"{{type(error).__name__}}: {{error}}"
    print(json.dumps([what, said]), flush=True)
"""


@contextmanager
def kept(secret: Path, port: int) -> Iterator[dict[str, str]]:
    """The escapes, to be tried while there is something to reach, which is as it was afterwards."""
    os.environ["HEADWATER_TEST_SECRET"] = "secret"
    try:
        yield {
            what: code.format(secret=str(secret), port=port, home=str(Path.home())) for what, code in ESCAPES.items()
        }
    finally:
        del os.environ["HEADWATER_TEST_SECRET"]
    assert secret.read_text() == "secret"
    assert [path.name for path in secret.parent.iterdir()] == ["secret.txt"]


def test_code_cannot_reach_anything_outside(secret: Path, port: int, nothing_left: None) -> None:
    with kept(secret, port) as escapes:
        ran = run(EACH.format(codes=json.dumps(escapes)), limits=Limits(seconds=60, files_mb=1, memory_mb=400))
    assert (ran.state, ran.code) == ("ended", 0), ran
    said = dict(map(json.loads, ran.output.splitlines()))
    assert said.keys() == ESCAPES.keys()
    assert {what: why for what, why in said.items() if not any(word in why.lower() for word in DENIED)} == {}
    assert "secret" not in re.sub(re.escape(str(secret)), "", ran.output)


@pytest.mark.slow
@pytest.mark.parametrize("what", ESCAPES)
def test_code_cannot_reach(what: str, secret: Path, port: int, nothing_left: None) -> None:
    with kept(secret, port) as escapes:
        ran = run(escapes[what], limits=QUICK)
    assert ran.state == "ended"
    assert ran.code == 1, (what, ran)
    assert any(word in ran.error.lower() for word in DENIED), ran
    assert "secret" not in ran.output


def test_the_environment_of_the_parent_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    ran = run("import os, json; print(json.dumps(dict(os.environ)))")
    assert set(json.loads(ran.output)) <= {*outside._ENVIRONMENT, "HOME", "TMPDIR", "LC_CTYPE"}


def test_no_file_of_the_parent_is_open_there() -> None:
    with open(__file__, "rb") as kept:  # noqa: PTH123
        os.set_inheritable(kept.fileno(), True)
        ran = run("import os\nfor n in range(3, 1000):\n  try: os.fstat(n); print(n)\n  except OSError: pass")
    assert (ran.code, ran.output) == (0, "")
    assert run("import os; os.write(0, b'x')").code == 1  # what it reads from can't be written


def test_its_own_folder_can_be_used_and_is_gone_afterwards() -> None:
    ran = run(
        "import os, tempfile\nopen('a', 'w').write('x')\nprint(open('a').read(), tempfile.mkdtemp(), os.getcwd())"
    )
    _, folder, here = ran.output.split()
    assert folder.startswith(here)
    assert not Path(here).exists()


def test_what_ordinary_programs_need_works() -> None:
    code = """
        import asyncio, threading, random, hashlib, datetime, collections, zoneinfo, tempfile, concurrent.futures
        import numpy
        print(input(), sum(map(int, input().split())))
        async def main(): await asyncio.sleep(0); return 1
        print(asyncio.run(main()))
        with concurrent.futures.ThreadPoolExecutor(4) as pool: print(sum(pool.map(int, '123')))
        print(numpy.linalg.norm(numpy.ones(4)), datetime.datetime.now() is None)
        with tempfile.NamedTemporaryFile('w+') as f: f.write('x')
    """
    import textwrap

    ran = run(textwrap.dedent(code), "a\n1 2\n")
    assert (ran.output, ran.code) == ("a 3\n1\n6\n2.0 False\n", 0), ran


ENDLESS = [
    ("while True: pass", "time"),
    ("import time; time.sleep(1000)", "time"),
    ("import os, time; os.close(1); os.close(2); time.sleep(1000)", "time"),
    ("import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except Exception: pass\n"
     "while True: pass", "time"),
    ("import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()", "time"),
    ("import atexit, time; atexit.register(time.sleep, 1000)", "time"),
    ("class A:\n  def __del__(self):\n    while True: pass\na = A()", "time"),
    ("try:\n  while True: pass\nfinally:\n  while True: pass", "time"),
    ("10 ** 10 ** 10", "time"),
    ("while True: print('x' * 1000)", "output"),
    ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output"),
]  # fmt: skip


def test_what_never_ends_is_ended(nothing_left: None) -> None:
    limits = Limits(seconds=5, output_kb=16)
    with ThreadPoolExecutor(len(ENDLESS)) as pool:  # most of them wait for the limit
        every = list(pool.map(lambda one: run(one[0], limits=limits), ENDLESS))
    for (code, state), ran in zip(ENDLESS, every, strict=True):
        assert ran.state == state, code
        assert len(ran.output) <= 16 << 10
        assert ran.error == f"it was ended at its limit of {state}"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = 'x' * 10 ** 10", "MemoryError"),
        ("x = []\nwhile True: x.append(bytearray(10 ** 7))", "MemoryError"),
        ("open('a', 'wb').write(bytes(10 ** 7))", "OSError"),
        ("for n in range(100): open(str(n), 'wb').write(bytes(10 ** 5))", "OSError"),
        ("x = [open(f'{n}', 'w') for n in range(1000)]", "OSError: [Errno 24] Too many open files"),
        ("def f(): f()\nf()", "RecursionError"),
    ],
)
def test_what_grows_without_end_fails(code: str, error: str, nothing_left: None) -> None:
    ran = run(code, limits=QUICK)
    assert (ran.state, ran.code) == ("ended", 1)
    assert ran.error.startswith(error), ran


def test_a_bomb_of_processes_or_threads_does_no_harm(nothing_left: None) -> None:
    assert run("import os\nwhile True: os.fork()", limits=QUICK).code == 1
    bomb = "import threading, time\nthreading.stack_size(32768)\n"
    bomb += "while True: threading.Thread(target=time.sleep, args=(100,), daemon=True).start()"
    ran = run(bomb, limits=Limits(seconds=5, memory_mb=200))
    assert ran.state in ("time", "output") or ran.code


def test_a_crash_is_told_as_a_shell_does() -> None:
    assert run("import ctypes; ctypes.string_at(0)").code == 128 + 11
    assert run("import sys; sys.exit(3)").code == 3
    assert run("import os; os._exit(3)").error == "it ended with code 3"
    assert run("def f(:").error == "SyntaxError: invalid syntax"


def test_the_same_code_says_the_same_each_time() -> None:
    code = "print({'a', 'b', 'c', 'd', 'e'}, hash('a'))"
    assert run(code).output == run(code).output


def test_the_last_line_is_shown_where_it_is_asked_for() -> None:
    assert run("x = 2\nx + 1", show=True).output == "3\n"
    assert run("x = 2\nx + 1").output == ""
    assert run("None", show=True).output == ""


# Tests against code


FAKES = {
    "an early end": "import sys; sys.exit(0)",
    "an early end in the function": "def f(x):\n  import os; os._exit(0)",
    "an end at exit": "import atexit, os; atexit.register(os._exit, 0)\ndef f(x): return 0",
    "an error that says it passed": "def f(x): raise SystemExit(0)",
    "asserts undone": "import builtins\nclass E(Exception): pass\nbuiltins.AssertionError = E\nAssertionError = E\n"
    "def f(x): return 0",
    "optimised away": "import sys; sys.flags\n__debug__2 = False\ndef f(x): return 0",
    "builtins undone": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\nbuiltins.all = "
    "builtins.any = lambda x: True\ndef f(x): return 0",
    "a helper of the tests undone": "def all(x): return True\ndef equal(a, b): return True\ndef f(x): return 0",
    "equal to anything": "class A:\n  def __eq__(self, other): return True\n  def __ne__(self, other): return False\n"
    "def f(x): return A()",
    "a number equal to anything": "class A(int):\n  def __eq__(self, other): return True\n  __hash__ = int.__hash__\n"
    "def f(x): return A(0)",
    "a text equal to anything": "class A(str):\n  def __eq__(self, other): return True\ndef f(x): return A('')",
    "a list that holds anything": "class A(list):\n  def __contains__(self, x): return True\n"
    "  __eq__ = lambda s, o: True\ndef f(x): return A()",
    "a marker printed": "print('{\"passed\": true}'); print('{\"ended\": true}')\ndef f(x): print('passed'); return 0",
    "a verdict on every file": "import os\nfor n in range(100):\n  try: os.write(n, b'{\"passed\": true}\\n"
    "{\"ended\": true}\\n')\n  except OSError: pass\ndef f(x): return 0",
    "frames looked through": "import sys, gc\nfor o in gc.get_objects():\n  try:\n    if hasattr(o, 'send'):\n"
    "      o.send(['gives', 1, []]); o.send({'ended': True})\n  except Exception: pass\ndef f(x): return 0",
    "unittest undone": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef f(x): return 0",
    "a thread that goes on": "import threading, os, time\nthreading.Thread(target=lambda: [time.sleep(.5), "
    "os._exit(0)]).start()\ndef f(x): time.sleep(2); return 0",
    "a name the tests have": "def check(c): pass\ndef test_it(): pass\nf = 3",
    "no such function": "x = 1",
    "no Python": "def f(x) return x",
    "nothing": "",
    "a trace": "import sys\nsys.settrace(lambda *a: None)\ndef f(x): return 0",
    "a recursion": "def f(x): return f(x)",
    "nested without end": "def f(x):\n  a = []\n  for _ in range(100000): a = [a]\n  return a",
    "a loop of references": "def f(x):\n  a = []; a.append(a); return a",
    "too much": "def f(x): return 'x' * 10 ** 8",
    "without end": "def f(x):\n  while True: yield 1",
}  # fmt: skip
TESTS = {
    "asserts": "assert f(1) == 2\nassert all(f(n) == n + 1 for n in range(3))",
    "check": "def equal(a, b):\n  return a == b\ndef check(candidate):\n  assert equal(candidate(1), 2)\n"
    "  assert candidate(5) in [6]\n",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n  def test_it(self):\n    self.assertEqual(f(1), 2)",
    "pytest": "from solution import f\ndef test_one():\n  assert f(1) == 2",
}


@pytest.mark.parametrize("kind", TESTS)
def test_right_code_passes(kind: str) -> None:
    verdict = verify("def f(x):\n  print('noise')\n  return x + 1", [TESTS[kind]], "f", limits=QUICK)
    assert verdict.right, verdict
    assert verdict.share == 1
    assert not verify("def f(x): return x + 2", [TESTS[kind]], "f", limits=QUICK).right


def test_only_right_code_passes(nothing_left: None) -> None:
    others = {"unittest undone": "unittest"} | dict.fromkeys(
        ("a list that holds anything", "equal to anything", "builtins undone", "a helper of the tests undone"),
        "asserts",
    )
    tried = [(fake, "check") for fake in FAKES] + list(others.items())
    limits = Limits(seconds=8, output_kb=16, memory_mb=400)
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda one: verify(FAKES[one[0]], [TESTS[one[1]]], "f", limits=limits), tried))
    for which, verdict in zip(tried, verdicts, strict=True):
        assert not verdict.right, (which, verdict)
        assert which[1] != "check" or verdict.share == 0


def test_each_assert_is_a_test() -> None:
    verdict = verify("def f(x): return abs(x)", ["assert f(1) == 1", "assert f(-2) == -2", "assert f(3) == 3"])
    assert (verdict.passed, verdict.failed, verdict.whole, verdict.right) == (2, 1, True, False)
    assert verdict.share == 2 / 3
    assert verdict.why == "AssertionError:"


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(): return {'a': (1, [2.5, None]), 3: {4, 5}}", "assert f() == {'a': (1, [2.5, None]), 3: {4, 5}}"),
        ("def f(): return (1, 2)", "assert f() != [1, 2] and isinstance(f(), tuple)"),
        ("def f(): return float('inf'), b'x', 1j, True", "assert f() == (float('inf'), b'x', 1j, True)"),
        ("from collections import *\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("def f(x): x.sort()", "x = [3, 1, 2]\nf(x)\nassert x == [1, 2, 3]"),
        ("def f(x): x['a'] = 1", "x = {}\nf(x)\nassert x == {'a': 1}"),
        ("def f(g, x): return [g(i) for i in x]", "assert f(lambda i: i * 2, [1, 2]) == [2, 4]"),
        ("def f(n):\n  for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]"),
        ("def f(x): return map(abs, x)", "assert sorted(f([-2, 1])) == [1, 2]"),
        ("def f(n): return lambda x: x + n", "assert f(1)(2) == 3"),
        ("class S:\n  def __init__(self): self.n = 0\n  def add(self, x): self.n += x; return self",
         "s = S()\ns.add(2).add(3)\nassert s.n == 5"),
        ("class A(list): pass\ndef f(): return A([1])", "assert f() == [1]"),
        ("def f(x):\n  if x < 0: raise ValueError('no')", "try:\n  f(-1)\nexcept ValueError as e:\n  ok = str(e)\n"
         "assert ok == 'no'"),
        ("class E(Exception): pass\ndef f(): raise E('x')",
         "try:\n  f()\n  ok = 0\nexcept Exception:\n  ok = 1\nassert ok"),
        ("import numpy as np\ndef f(): return np.float64(1.5), np.arange(2)", "assert f() == (1.5, [0, 1])"),
        ("import math\ndef f(): return math.pi", "assert math.isclose(f(), 3.14159265, rel_tol=1e-6)"),
        ("def f(*, a, b=2): return a + b", "assert f(a=1) == 3"),
        ("import enum\nclass E(enum.IntEnum):\n  A = 1\ndef f(): return E.A", "assert f() == 1"),
        ("def f(n): return 7 ** n", "assert f(6000) == 7 ** 6000"),
        ("from decimal import Decimal\ndef f(): return Decimal('1.1')", "from decimal import Decimal\n"
         "assert f() == Decimal('1.1')"),
        ("def f(t): return t('3')", "assert f(int) == 3"),
        ("X = 5", "assert X == 5"),
    ],
)  # fmt: skip
def test_values_pass_between_tests_and_code(code: str, test: str) -> None:
    verdict = verify(code, [test], limits=QUICK)
    assert verdict.right, verdict


def test_what_stands_before_is_the_tests_own_copy() -> None:
    before = "def helper(x):\n  return x * 2\ndef f(x):\n  pass\n"
    test = "def check(candidate):\n  assert helper(candidate(1)) == 4"
    assert verify("def f(x): return x + 1", [test], "f", before).right
    assert not verify("def helper(x): return 4\ndef f(x): return x + 2", [test], "f", before).right


def test_code_never_sees_the_tests() -> None:
    spy = "import gc\ndef f(x): return [o for o in gc.get_objects() if chr(109) + 'ark-42' in str(o)[:10_000]] and 1"
    assert verify(spy, ["assert f(0) != 1, 'mark-42'"], limits=QUICK).right


def test_tests_that_are_no_python_are_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="the tests are no Python"):
        verify("x = 1", ["assert f("])


def test_it_refuses_where_it_cannot_shut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a kernel without Landlock.
    for name in ("inside", "walls", "wire"):
        text = outside._INSIDE.with_name(f"{name}.py").read_text()
        (tmp_path / f"{name}.py").write_text(text.replace("def landlock(", "landlock = lambda room: False\ndef _(", 1))
    monkeypatch.setattr(outside, "_INSIDE", tmp_path / "inside.py")
    with pytest.raises(UserError, match=r"can't shut off files here, so it runs no code.*unshielded: true"):
        run("print(1)")
    with pytest.raises(UserError, match="can't shut off files here"):
        verify("def f(): return 1", ["assert f() == 1"])
    allowed = Limits(unshielded=True)
    assert run("print(1)", limits=allowed).output == "1\n"
    assert run("open('/etc/passwd')", limits=allowed).error == "PermissionError: the sandbox has no file '/etc/passwd'"


def test_processes_may_be_started_from_several_threads() -> None:
    outputs: dict[int, str] = {}

    def one(n: int) -> None:
        outputs[n] = run(f"print({n})", limits=QUICK).output

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {n: f"{n}\n" for n in range(6)}


# The reward


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Like so:\n\n```py\nx = 1\n```\nor\n```\nx = 2\n```\nand run\n```bash\nls\n```", "x = 2\n"),
        ("```python\ndef f(): pass\n```\n```python\nf()\n```", "def f(): pass\n"),
        ("```python\ndef f():\n    pass", "def f():\n    pass"),
        ("```python\ns = '''\n    ```\n'''\n```", "s = '''\n    ```\n'''\n"),
        ("  ```python\n  def f():\n    pass\n  ```", "def f():\n  pass\n"),
        ("def f(): pass", "def f(): pass"),
    ],
)
def test_the_code_of_an_answer(answer: str, code: str) -> None:
    assert code_of(answer, "f") == code


def test_an_answer_may_go_on_where_the_prompt_ends() -> None:
    before = "def f(x):\n"
    assert code_of("    return x\n", "f", before) == before + "    return x\n"
    assert code_of("def f(x):\n  return 1\n", "f", before) == "def f(x):\n  return 1\n"


def test_tests_of_all_forms_reward_right_code_alone() -> None:
    right, wrong = "```python\ndef f(x):\n    return x + 1\n```", "```python\ndef f(x):\n    return x\n```"
    for tests in ("assert f(1) == 2", '["assert f(1) == 2", "assert f(0) == 1"]', TESTS["check"]):
        row = {"tests": tests, "entry_point": "f"}
        assert [correct("", answer, row) for answer in (right, wrong)] == [1, 0]
    half = {"tests": '["assert f(1) == 1", "assert f(1) == 2"]'}
    assert (correct("", right, half), share("", right, half)) == (0, 0.5)
    with pytest.raises(ValueError, match="the row has no `tests`"):
        correct("", right, {"tests": ""})


def test_programs_are_held_to_what_they_write() -> None:
    row = {"tests": '[{"input": "1 2", "output": "3"}, {"input": "2 2", "output": "4\\n"}]'}
    assert correct("", "print(sum(map(int, input().split())), '')", row) == 1
    assert share("", "print(3)", row) == 0.5
    assert correct("", "import sys; print(3); print(4); sys.exit(1)", row) == 0


def test_it_is_a_reward_that_a_recipe_can_name() -> None:
    mine = Rewards([RewardFunction.model_validate({"function": "unit_tests", "options": {"seconds": 20}})])
    rows = [Asked("", f"def f(): return {n}", {"id": n, "tests": "assert f() == 1"}) for n in range(3)]
    assert mine(rows) == {"unit_tests": [0.0, 1.0, 0.0]}
    with pytest.raises(UserError, match=r"unit_tests .* failed on row 7: ValueError: the row has no `tests`"):
        mine([Asked("", "", {"id": 7})])


def test_solutions_of_humaneval_pass_and_stubs_do_not(samples: Path) -> None:
    lines = gzip.decompress((samples / "eval" / "HumanEval.jsonl.gz").read_bytes()).splitlines()
    for line in lines[::23]:
        task = json.loads(line)
        row = {"tests": task["test"], "entry_point": task["entry_point"], "setup": task["prompt"]}
        assert correct("", task["canonical_solution"], row) == 1, task["task_id"]
        assert correct("", f"```python\n{task['prompt']}{task['canonical_solution']}```", row) == 1, task["task_id"]
        assert correct("", "    return None\n", row) == 0, task["task_id"]
