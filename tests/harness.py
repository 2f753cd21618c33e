"""What tests share beside fixtures: the suite's Prefect server as a value, and ports nobody listens on."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class PrefectServer:
    """The suite's one Prefect server: its API, the lake it belongs to, and the environment of commands that use it."""

    url: str
    port: int
    lake: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PREFECT_API_URL": self.url}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
