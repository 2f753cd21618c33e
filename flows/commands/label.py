"""`headwater label`: a page on which people compare answers, or judge documents, for training."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.lake.lake import Lake as Store
from flows.commands.chat import Chosen, choose
from flows.commands.common import COMMON, Common
from flows.commands.dialogue import Sampling
from flows.commands.serve import HOST, address, answer_requests, is_loopback, listener
from flows.label import items as making
from flows.label.items import TABLES
from flows.output import Console, note

if TYPE_CHECKING:
    from flows.label.kinds import Row
    from flows.label.labels import Journal

_MOST = 100_000  # items asked for at once


def label(
    checkpoints: Annotated[list[str], Parameter(negative="")] = [],  # noqa: B006
    *,
    prompts: str = "conversations",
    answers: str | None = None,
    documents: Annotated[bool, Parameter(negative="")] = False,
    rule: str | None = None,
    number: int = 100,
    annotators: str = "",
    overlap: float = 0.2,
    corpus: str | None = None,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_tokens: int = 200,
    seed: int = 0,
    port: int = 8010,
    host: str = HOST,
    common: Common = COMMON,
) -> None:
    """A page on which people compare answers, or judge documents, for training.

    What they say lies in the lake under labels/, at once, as sources of a recipe read it. Ctrl-C ends the page.

    Parameters
    ----------
    checkpoints
        One, whose answers are compared with each other, or two: stages of the last run (`sft ppo`), folders, or
        `last`. Without any, what was asked for before is gone on with; at first it is `last`.
    prompts
        What they answer: `conversations` or `preferences` of the lake's last run, or a file of prompts or dialogues.
    answers
        Pairs of answers that are there already, instead of checkpoints': a file, or the lake's `preferences`.
    documents
        Judge texts that were kept and dropped.
    rule
        With --documents: those that failed this rule, beside others that were kept.
    number
        How many pairs or documents are asked for.
    annotators
        Who judges, parted by commas; each gets a key. Those of earlier stay. At first it is you.
    overlap
        The share that everybody judges, by which agreement is told; each of the others is one annotator's.
    corpus
        Whose dialogues, pairs or documents.
    temperature
        Of the answers.
    top_p
        Draw from the likeliest tokens that have this share of the probability.
    max_tokens
        Longest answer, in tokens.
    seed
        Of what is chosen and drawn.
    port
        Where to listen; 0: wherever there is room.
    host
        On which address. Whoever can reach it needs a key all the same.
    """
    if not 0 <= overlap <= 1:
        raise UserError(f"--overlap {overlap:g}: a share from 0 to 1")
    if not 1 <= number <= _MOST:
        raise UserError(f"--number {number}: from 1 to {_MOST:,}")
    if len(checkpoints) > 2 or (answers and checkpoints):
        raise UserError("compare one checkpoint or two, or --answers that are there already")
    if documents and (checkpoints or answers):
        raise UserError("--documents judges texts: leave the checkpoints and --answers out")
    if rule and not documents:
        raise UserError(f"--rule {rule} goes with --documents")
    sampling = Sampling(temperature, top_p, max_tokens, seed)

    from flows.browse.documents import both_sides
    from flows.label.annotators import annotators as keys_of
    from flows.label.app import application
    from flows.label.desk import KINDS, Desk
    from flows.label.labels import Labels
    from flows.service.guard import HOSTS

    lake = Store(common.folder)
    labels, kind = Labels(lake.root), KINDS["documents" if documents else "pairs"]
    foreign = any(place and place not in TABLES for place in (answers, prompts))
    (lake.create if foreign or labels.root.is_dir() else lake.require)()
    with labels.held(kind.name), listener(host, port) as listening, suppress(KeyboardInterrupt):
        items = labels.items(kind.name)
        if checkpoints or answers or rule or not items.rows:
            if documents:
                _put(items, both_sides(lake, corpus, rule, number, seed), Counter())
            elif answers:
                _put(items, making.compared(making.pairs_of(lake, answers, corpus))[:number], Counter())
            else:
                chosen = [_checkpoint(choose(name, common.folder)) for name in checkpoints or ["last"]]
                asked = making.sample(making.prompts_of(lake, prompts, corpus), number, seed)
                _put(items, *_written(lake.root, asked, chosen, sampling))
        keys = keys_of(labels, [name.strip() for name in annotators.split(",") if name.strip()])
        desk = Desk(labels, kind, keys, overlap)
        url = address(host, listening.getsockname()[1])
        links = {name: f"{url}/#{key}" for name, key in keys.items()}
        answer = {"url": url, "kind": kind.name, "items": len(items.rows), "annotators": links}
        common.output.answer(answer | {"labels": str(labels.root)}, _show)
        answer_requests(application(desk, keys, HOSTS if is_loopback(host) else None), listening)


def _checkpoint(chosen: Chosen) -> making.Checkpoint:
    return making.Checkpoint(chosen.folder, {name: str(value) for name, value in asdict(chosen).items() if value})


def _written(
    lake: Path, prompts: list[Any], checkpoints: list[making.Checkpoint], sampling: Sampling
) -> tuple[list[Row], Counter[str]]:
    """The pairs that checkpoints write, telling of it, and why other prompts have none."""
    from models.synthesis.config import WriterConfig

    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "new_tokens": sampling.max_tokens}
    config = WriterConfig(model="sft", **drawn)  # a model at hand: its folder says which
    pairs: list[Row] = []
    left_out: Counter[str] = Counter()
    for rows, why in making.written(lake, prompts, checkpoints, config, sampling.seed):
        pairs += rows
        left_out += why
        note(f"{len(pairs) + left_out.total():,} of {len(prompts):,} prompts are answered")
    return pairs, left_out


def _put(items: Journal, rows: list[Row], left_out: Counter[str]) -> None:
    """Ask for these, too. Raises UserError where nothing is asked for then."""
    new = sum(items.add(row) for row in rows)
    why = "".join(f"; {count:,} left out: {reason}" for reason, count in left_out.items())
    note(f"{new:,} new to be judged, {len(items.rows):,} in all{why}")
    if not items.rows:
        raise UserError("nothing is left to be judged: give other prompts, or draw with a higher --temperature")


def _show(console: Console, answer: dict[str, Any]) -> None:
    console.line(f"{answer['items']:,} {answer['kind']}; what is said of them lies in {answer['labels']}")
    for name, link in answer["annotators"].items():
        console.line(f"{name}: {link}")
    console.line("Ctrl-C ends it")
