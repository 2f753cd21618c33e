"""How several processes train one model: ways to share it out, by the names they have in a recipe's `runtime`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.parallel.ranks import Ranks

KINDS = {
    "data": "models.parallel.ranks:DataParallel",
    "fsdp": "models.parallel.fsdp:FullyShard",
}


def ranks_of(kind: str) -> Ranks:
    """This process as one of several, sharing a model in a way of `KINDS`.

    A process group must have been set up (`torch.distributed.init_process_group`).
    """
    module, name = KINDS[kind].split(":")
    ranks: Ranks = getattr(import_module(module), name)()
    return ranks
