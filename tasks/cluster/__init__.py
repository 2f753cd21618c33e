"""How work reaches Ray: `map_shards` for many small pieces, `run_alone` for one that takes the whole machine.

The only home of Ray. Everything above passes plain functions and plain values.
"""

from tasks.cluster.alone import run_alone
from tasks.cluster.map import Shard, map_shards

__all__ = ["Shard", "map_shards", "run_alone"]
