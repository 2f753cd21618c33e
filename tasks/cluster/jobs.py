"""`run_job`: a piece of training as a job of a Ray cluster, which lives on when the process that asked for it ends.

A job is known by what it makes: its id comes from the stage's fingerprint and the lake. So whoever asks again, after a
kill or from another machine, finds the job that runs and follows it. What came of it is told by a file in the lake that
the job writes last (`answer.json`), and never by the cluster's own status alone, which is wrong at times: a head that
restarts forgets its jobs, a supervisor that loses the head calls a job failed that has ended well, and one whose driver
is gone may stay RUNNING for ever. A job that is lost in one of these ways is begun again, and goes on from its own last
saved state; one whose own code failed isn't.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datalake.atomic import write_atomically
from datalake.errors import UserError
from tasks.cluster.connect import ClusterError
from tasks.cluster.job_server import Away, JobServer, State
from tasks.runtime import JobsConfig, Runtime

ASKED, ANSWER, BEAT = "asked.json", "answer.json", "beat"  # in the job's folder
LOOK_S = 1.0
BEAT_S = 5.0
STILL_S = 300.0  # a job that says it runs and hasn't moved its beat for so long runs no more
RELEASE_S = 120.0  # so long a cluster may take to let go of a job that has ended


@dataclass(frozen=True)
class Job:
    """What is asked for: `asked` is plain JSON data that the command `python -m MODULE FOLDER` finds in the folder."""

    stage: str
    fingerprint: str
    lake: str
    folder: Path
    module: str
    asked: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The submission id, and the name on Kubernetes: at most 47 letters, digits and dashes, a letter first.

        96 bits of the fingerprint, and which lake it is: two lakes may ask one cluster for the same stage.
        """
        place = hashlib.sha256(self.lake.encode()).hexdigest()[:8]
        return f"{self.stage.replace('_', '-')}-{self.fingerprint[:24]}-{place}"

    def answer(self) -> dict[str, Any] | None:
        """What the job has told of its end: `report`, `mistake` (a user's) or `error`; None before."""
        try:
            answer = json.loads((self.folder / ANSWER).read_bytes())
        except (OSError, ValueError):
            return None
        return answer if answer.get("fingerprint") == self.fingerprint else None

    def beat(self) -> bytes:
        """What changes while its process lives."""
        try:
            return (self.folder / BEAT).read_bytes()
        except OSError:
            return b""


def of_the_cluster(error: Exception) -> bool:
    """Whether it is the cluster that failed, a node of it or its memory, and not what ran there."""
    return isinstance(error, ClusterError) or type(error).__module__ == "ray.exceptions"


def server_of(config: JobsConfig) -> JobServer:
    """The job server of a config. Raises UserError where what it needs isn't installed or isn't there."""
    if config.raycluster:
        from tasks.cluster.kuberay import KubeRayServer

        return KubeRayServer(config)
    from tasks.cluster.ray_jobs import RayJobServer

    return RayJobServer(config.address)


def run_job(
    job: Job, runtime: Runtime, poll: Callable[[], None], tell: Callable[[str], None], server: JobServer | None = None
) -> dict[str, Any]:
    """Find the job or ask for it, follow it to its end, and return its report. `poll` is called about once a second,
    `tell` gets each line that it writes. Where this process is interrupted the job is stopped; it saves its state.

    Raises:
        UserError: a mistake that the job found, or a job server that can't be used.
        ClusterError: where the job is lost more than `runtime.retries` times, or its server stays away.
        RuntimeError: an error of the job's own code, in one line.
    """
    config = runtime.config.jobs
    assert config is not None
    following = _Following(job, config, server or server_of(config), runtime.config.retries, tell)
    try:
        return following.until_answered(poll)
    except ClusterError:
        raise
    except BaseException:
        following.stop()
        raise
    finally:
        following.close()


class _Following:
    """One job from the side of who asked for it."""

    def __init__(
        self, job: Job, config: JobsConfig, server: JobServer, retries: int, tell: Callable[[str], None]
    ) -> None:
        self.job, self.config, self.server, self.left, self.tell = job, config, server, retries, tell
        self.begun = False  # the server has answered, and the job is ours to stop
        self.due = False  # the job is to be submitted, as soon as the server takes it
        self.logs: _Logs | None = None
        self._moved, self._beat = time.monotonic(), b""

    def until_answered(self, poll: Callable[[], None]) -> dict[str, Any]:
        heard = time.monotonic()
        while True:
            try:
                answer = self._look()
                heard = time.monotonic()
            except Away as error:
                if not self.begun:
                    raise UserError(
                        f"no job server at {self.config.address or self.config.raycluster} ({error}): start the cluster"
                        " with its dashboard, or correct runtime.jobs"
                    ) from None
                if time.monotonic() - heard > self.config.away_s:
                    raise ClusterError(
                        f"the job server has been away for {self.config.away_s:.0f} s ({error}); job {self.job.id} may"
                        " go on: the same command finds it"
                    ) from None
                answer = None
            self._say()
            poll()
            if answer is not None:
                return self._report(answer)
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """Stop the job and give it time to save; a server that is away is left alone."""
        if not self.begun:
            return
        with suppress(Away):
            self.server.stop(self.job.id)
            self.tell(f"job {self.job.id} is being stopped")
            deadline = time.monotonic() + self.config.saving_s
            while self.server.state(self.job.id)[0] in ("waiting", "running") and time.monotonic() < deadline:
                time.sleep(LOOK_S)
            self.server.remove(self.job.id)

    def close(self) -> None:
        """End the reading of logs."""
        self._say()
        if self.logs:
            self.logs.close()

    def _look(self) -> dict[str, Any] | None:
        """The answer where there is one; else see that there is a job that works on it."""
        state, said = self.server.state(self.job.id)
        if not self.begun:
            self._begin(state)
        elif self.due:
            self._submit(state)
        elif (answer := self.job.answer()) is not None and state in ("ended", "unknown"):
            return answer
        elif state == "running" and self._still():
            self._again(f"it says that it runs, and has done nothing for {STILL_S:.0f} s")
        elif state in ("ended", "unknown"):
            # It writes its answer before it ends: looked at once more, it must be there by now.
            answer = self.job.answer()
            if answer is None:
                self._again(said or "the cluster doesn't know it any more")
            return answer
        return None

    def _begin(self, state: State) -> None:
        """The first look: follow what is there, ask for what isn't."""
        if state in ("waiting", "running"):
            self.tell(f"job {self.job.id} is there ({state}) and is followed")
        elif "report" in (self.job.answer() or {}):
            self.tell(f"job {self.job.id} has ended since, and its report is taken")
        else:
            self.due = True
        self.begun = True
        self._followed()
        if self.due:
            self._submit(state)

    def _followed(self) -> None:
        """Read its log from now on, and expect it to move."""
        self._moved = time.monotonic()
        if self.logs:
            self.logs.close()
        self.logs = _Logs(self.server, self.job.id)

    def _submit(self, state: State) -> None:
        """Ask for the job; a server that can't take it yet is away, and is asked again."""
        if state in ("waiting", "running"):  # as it says of one that is lost
            self.server.stop(self.job.id)
        if state != "unknown":
            self._remove()
        folder = self.job.folder
        for name in (ANSWER, BEAT):
            (folder / name).unlink(missing_ok=True)
        write_atomically(folder / ASKED, json.dumps(self.job.asked, indent=1).encode())
        entrypoint = shlex.join([self.config.python, "-m", self.job.module, str(folder)])
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(self.config.saving_s)}  # Ray kills after 3 s else
        metadata = {"stage": self.job.stage, "fingerprint": self.job.fingerprint, "lake": self.job.lake}
        self.server.submit(self.job.id, entrypoint, environment, metadata)
        self.due = False
        self._followed()
        self.tell(f"job {self.job.id} submitted")

    def _again(self, why: str) -> None:
        """Begin a job that was lost anew; it goes on from its last saved state."""
        if self.left == 0:
            raise ClusterError(f"job {self.job.id} was lost ({why}): the same command goes on from its last state")
        self.left -= 1
        self.tell(f"job {self.job.id} was lost ({why}) and is begun again from its last state")
        self.due = True

    def _remove(self) -> None:
        """Let the cluster forget the job, and wait until it has."""
        deadline = time.monotonic() + RELEASE_S
        while (state := self.server.state(self.job.id)[0]) != "unknown":
            if state == "ended":
                self.server.remove(self.job.id)
            if time.monotonic() > deadline:
                raise ClusterError(f"the cluster doesn't let go of job {self.job.id} ({state}): remove it there")
            time.sleep(LOOK_S / 4)

    def _still(self) -> bool:
        """Whether its process has done nothing for long, by this machine's clock alone."""
        beat = self.job.beat()
        if beat != self._beat:
            self._beat, self._moved = beat, time.monotonic()
        return time.monotonic() - self._moved > STILL_S

    def _say(self) -> None:
        for line in self.logs.lines() if self.logs else ():
            self.tell(line)

    def _report(self, answer: dict[str, Any]) -> dict[str, Any]:
        if self.logs:
            self.logs.end()
            self._say()
        (self.job.folder / ANSWER).unlink(missing_ok=True)  # it is taken once: what it speaks of may be removed later
        with suppress(Away):
            self.server.remove(self.job.id)
        if "mistake" in answer:
            raise UserError(answer["mistake"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return dict(answer["report"])


class _Logs:
    """What a job writes, line by line, read in a thread; a connection that breaks is made again."""

    def __init__(self, server: JobServer, id: str) -> None:
        self.server, self.id = server, id
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._seen, self._part = 0, ""
        self._thread = threading.Thread(target=self._read, name="job-logs", daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """Those that have come since."""
        found = []
        while not self._lines.empty():
            found.append(self._lines.get())
        return found

    def end(self) -> None:
        """Wait a little for the last lines of a job that has ended."""
        self._thread.join(timeout=5.0)
        if self._part:
            self._lines.put(self._part)
            self._part = ""

    def close(self) -> None:
        self._closing.set()

    def _read(self) -> None:
        while not self._closing.is_set():
            whole = False
            with suppress(Exception):  # the loop of `_Following` says what is wrong with the server
                whole = asyncio.run(self._follow())
            if whole:
                return
            self._closing.wait(LOOK_S)

    async def _follow(self) -> bool:
        """Read to the end; whether it came. A connection begins with the first line again."""
        state = self.server.state(self.id)[0]
        if state in ("unknown", "waiting"):
            return False
        number, self._part = 0, ""
        async for text in self.server.logs(self.id):
            if self._closing.is_set():
                return True
            *lines, self._part = (self._part + text).split("\n")
            for line in lines:
                number += 1
                if number > self._seen:
                    self._seen = number
                    self._lines.put(line)
        return self.server.state(self.id)[0] in ("ended", "unknown")
