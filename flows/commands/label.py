"""`headwater label`: a page on which people compare answers, or judge documents, for training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.lake.lake import Lake as Store
from flows.checkpoints import Chosen, choose
from flows.commands.common import COMMON, Common
from flows.commands.dialogue import Sampling
from flows.label import items as making
from flows.label.items import TABLES
from flows.output import Console, note
from flows.service.listening import HOST, address, answer_requests, is_loopback, listener

if TYPE_CHECKING:
    from flows.label.desk import Desk
    from flows.label.kinds import Row

    Made = tuple[list[Row], Counter[str]]  # items, and why others are none

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
        made: Iterator[Made] = iter(())
        if checkpoints or answers or rule or not labels.items(kind.name).rows:
            if documents:
                made = iter([(both_sides(lake, corpus, rule, number, seed), Counter())])
            elif answers:
                made = iter([(making.compared(making.pairs_of(lake, answers, corpus))[:number], Counter())])
            else:
                chosen = [_checkpoint(choose(name, common.folder)) for name in checkpoints or ["last"]]
                asked = making.sample(making.prompts_of(lake, prompts, corpus), number, seed)
                made = _written(lake.root, asked, chosen, sampling)
        keys = keys_of(labels, [name.strip() for name in annotators.split(",") if name.strip()])
        desk = Desk(labels, kind, keys, overlap)
        with _filling(desk, made):
            url = address(host, listening.getsockname()[1])
            links = {name: f"{url}/#{key}" for name, key in keys.items()}
            answer = {"url": url, "kind": kind.name, "items": len(desk.items), "annotators": links}
            common.output.answer(answer | {"labels": str(labels.root)}, _show)
            answer_requests(application(desk, keys, HOSTS if is_loopback(host) else None), listening)


@contextmanager
def _filling(desk: Desk, made: Iterator[Made]) -> Iterator[None]:
    """Put items on a desk as they are made: until there are some before the block begins, the rest meanwhile.

    Raises UserError where there are none.
    """
    over = Event()
    new, left_out = 0, Counter[str]()

    def fill(enough: Callable[[], bool]) -> None:
        nonlocal new, left_out
        for rows, why in made:
            new += desk.ask(rows)
            left_out += why
            if enough():
                return
        why_not = "".join(f"; {count:,} left out: {reason}" for reason, count in left_out.items())
        note(f"{new:,} new {desk.kind.name} to be judged, {len(desk.items):,} in all{why_not}")
        over.set()

    def fill_all() -> None:
        try:
            fill(over.is_set)
        except UserError as error:
            note(str(error))
        finally:
            desk.coming = False

    fill(lambda: bool(desk.items))
    if not desk.items:
        raise UserError("nothing is left to be judged: give other prompts, or draw with a higher --temperature")
    desk.coming = not over.is_set()
    filling = Thread(target=fill_all)
    if desk.coming:
        filling.start()
    try:
        yield
    finally:
        over.set()
        if filling.is_alive():
            filling.join()


def _checkpoint(chosen: Chosen) -> making.Checkpoint:
    return making.Checkpoint(chosen.here, {name: str(value) for name, value in asdict(chosen).items() if value})


def _written(
    lake: Path, prompts: list[Any], checkpoints: list[making.Checkpoint], sampling: Sampling
) -> Iterator[Made]:
    """The pairs that checkpoints write, telling of it, and why other prompts have none."""
    from models.synthesis.config import WriterConfig

    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "new_tokens": sampling.max_tokens}
    config = WriterConfig(model="sft", **drawn)  # a model at hand: its folder says which
    done = 0
    for rows, why in making.written(lake, prompts, checkpoints, config, sampling.seed):
        done += len(rows) + why.total()
        note(f"{done:,} of {len(prompts):,} prompts are answered")
        yield rows, why


def _show(console: Console, answer: dict[str, Any]) -> None:
    console.line(f"{answer['items']:,} {answer['kind']}; what is said of them lies in {answer['labels']}")
    for name, link in answer["annotators"].items():
        console.line(f"{name}: {link}")
    console.line("Ctrl-C ends it")
