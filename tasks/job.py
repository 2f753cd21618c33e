"""`python -m tasks.job FOLDER`: a training stage as a job of a Ray cluster, asked for by `tasks.cluster.run_job`.

It reads what is asked in the folder, moves a beat while it lives, and writes its answer last: a report, a mistake that
a user can mend, or an error. SIGTERM, with which a job is stopped, lets the training save its state.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.places import place
from datalake.secrets import masked
from tasks.asked import Asked
from tasks.cluster.jobs import ANSWER, ASKED, BEAT, BEAT_S, of_the_cluster


def main(folder: Path) -> int:
    """Do what is asked; the exit status."""
    asked = Asked.model_validate_json((folder / ASKED).read_bytes())
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_beat, args=(folder / BEAT,), name="beat", daemon=True).start()
    print(f"{asked.stage} of {asked.corpus} ({asked.fingerprint[:16]}), process {os.getpid()}", flush=True)
    try:
        answer: dict[str, Any] = {"report": _train(asked)}
    except KeyboardInterrupt:
        print("interrupted; asked again, it goes on from its last state", flush=True)
        return 130
    except UserError as error:
        answer = {"mistake": masked(str(error))}
    except Exception as error:
        traceback.print_exc()
        if of_the_cluster(error):
            return 1  # without an answer: it is lost, not wrong, and who asked begins it again
        answer = {"error": masked(" ".join(f"{type(error).__name__}: {error}".split())[:500])}
    write_atomically(folder / ANSWER, json.dumps(answer | {"fingerprint": asked.fingerprint}).encode())
    print(f"{asked.stage} is done" if "report" in answer else next(iter(answer.values())), flush=True)
    return 0 if "report" in answer else 1


def _train(asked: Asked) -> dict[str, Any]:
    from tasks.learning import learning, train_here

    runtime = asked.runtime_here(learning(asked.stage).key)
    return train_here(asked.stage, asked.config, runtime, asked.inputs)


def _beat(path: Path) -> None:
    waiting = threading.Event()
    for number in itertools.count(1):
        write_atomically(path, str(number).encode())
        waiting.wait(BEAT_S)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: what follows is up to those who save
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(place(sys.argv[1])))
