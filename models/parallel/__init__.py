"""How several processes train one model: ways to share it out, by the names they have in a recipe's `runtime`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.parallel.ranks import Ranks

KINDS = {
    "data": "models.parallel.ranks:DataParallel",
    "fsdp": "models.parallel.fsdp:FullyShard",
    "tensor": "models.parallel.tensor:TensorParallel",
    "expert": "models.parallel.expert:ExpertParallel",
}


def ranks_of(kind: str, wanted: int = 0) -> Ranks:
    """This process as one of several, sharing a model in a way of `KINDS`. `wanted`: how many there were to be.

    A process group must have been set up (`torch.distributed.init_process_group`).
    """
    module, name = KINDS[kind].split(":")
    ranks: Ranks = getattr(import_module(module), name)()
    ranks.wanted = wanted
    return ranks
