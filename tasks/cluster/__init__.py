"""How work reaches Ray: `map_shards` for many small pieces, `run_alone` for one that takes the whole machine,
`run_ranks` for training done by several processes, `run_job` for training that outlives who asked for it, `Actors`
for those that write a policy's answers, `deploy` for those that serve models.

The only home of Ray. Everything above passes plain functions and plain values.
"""

from tasks.cluster.alone import run_alone
from tasks.cluster.jobs import run_job
from tasks.cluster.map import Shard, map_shards
from tasks.cluster.rollouts import Actors
from tasks.cluster.serving import deploy
from tasks.cluster.train import run_ranks

__all__ = ["Actors", "Shard", "deploy", "map_shards", "run_alone", "run_job", "run_ranks"]
