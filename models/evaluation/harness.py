"""EleutherAI's evaluation harness (`lm_eval`, an optional package) over our checkpoints.

Its tasks ask, and our networks answer, through the same likelihoods and the same engine as our own benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from models.evaluation.exam import Settings
from models.evaluation.judge import Asker, beginning_of_text, pairs, windows
from models.evaluation.tasks import log_likelihoods
from models.text.tokenizer import encode


def adapter(model: nn.Module, tokenizer: PreTrainedTokenizerBase, batch: int = 16) -> Any:
    """A model as the harness asks one: an `lm_eval.api.model.LM`.

    Raises:
        UserError: where the harness isn't installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise UserError("EleutherAI's harness isn't installed: pip install lm_eval") from None

    class Checkpoint(LM):
        """Answers requests; each has its arguments in `args`."""

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            """Of (context, continuation): nats, and whether greedy decoding writes it."""
            found = log_likelihoods(model, pairs(tokenizer, [request.args for request in requests]), batch)
            return [(one.nats, one.greedy) for one in found]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            """Of whole texts, in windows that don't overlap, as the harness defines it."""
            context = int(model.config.context)  # type: ignore[union-attr, arg-type]
            before = beginning_of_text(tokenizer)
            parts = [windows(ids, before, context, context) for ids in encode(tokenizer, [r.args[0] for r in requests])]
            found = iter(log_likelihoods(model, [pair for part in parts for pair in part], batch))
            return [sum(next(found).nats for _ in part) for part in parts]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            """What is written behind a context, greedily or by the task's temperature, up to a text that stops it."""
            answers = []
            for place, request in enumerate(requests):
                context, asked = request.args
                until = asked.get("until") or []
                stops = [until] if isinstance(until, str) else list(until)
                heat = float(asked.get("temperature") or 0.0) if asked.get("do_sample") else 0.0
                new = int(asked.get("max_gen_toks") or 256)
                asker = Asker(model, tokenizer, Settings(batch=batch))
                ((text, _, _),) = asker.written(asker.prompts([context]), [(place,)], stops, new, heat, lambda _: None)
                answers.append(text)
            return answers

    return Checkpoint()


def run(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    folder: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    batch: int = 16,
) -> dict[str, Any]:
    """What the harness says of a model: its `results`, and its `samples` item by item.

    tasks: its own, by name, whose data it loads from the hub; or those of YAML files in `folder`.
    """
    judged = adapter(model, tokenizer, batch)
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    told: dict[str, Any] = lm_eval.simple_evaluate(
        model=judged, tasks=list(tasks), task_manager=manager, limit=limit, num_fewshot=shots, bootstrap_iters=0
    )
    return told
