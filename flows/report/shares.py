"""What a run's mixture is made of: by source the share asked and the share realised, in words and in tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datalake.errors import LostDataError
from datalake.lake.lake import FolderRef, Lake, Ref, TableRef
from datalake.lake.tokens import token_indices


@dataclass
class Share:
    """A source, or a language: what of it trains, repetitions counted, and what is held out."""

    name: str
    asked: float | None = None  # its weight over all weights; None where the recipe has none
    documents: int = 0
    words: float = 0.0
    tokens: float | None = None
    own_words: int = 0  # each document once
    held_out: int = 0  # documents
    share: float = 0.0  # of all training words
    token_share: float | None = None
    languages: dict[str, float] = field(default_factory=dict)  # words by language

    @property
    def epochs(self) -> float:
        """How often a document of it is seen, on average over its words."""
        return self.words / self.own_words if self.own_words else 0.0


def shares(lake: Lake, refs: Mapping[str, Ref], weights: Mapping[str, float]) -> tuple[list[Share], list[Share]]:
    """The mixture by source and by language, largest first; empty where the run has none."""
    found = _mixed(lake, refs)
    if found is None:
        return [], []
    sums = [(name, "sum") for name in ("trains", "own", "words", "tokens")] + [("trains", "count")]
    by_source: dict[str, Share] = {}
    by_language: dict[str, Share] = {}
    for row in found.group_by(["source", "language"]).aggregate(sums).to_pylist():
        source, language = row["source"], row["language"]
        for group in (by_source.setdefault(source, Share(source)), by_language.setdefault(language, Share(language))):
            group.documents += row["trains_sum"]
            group.held_out += row["trains_count"] - row["trains_sum"]
            group.own_words += row["own_sum"]
            group.words += row["words_sum"]
            group.tokens = None if row["tokens_sum"] is None else (group.tokens or 0.0) + row["tokens_sum"]
            group.languages[language] = group.languages.get(language, 0.0) + row["words_sum"]
    for name, weight in weights.items():  # what was asked of a source that gave nothing is said too
        if weight and name not in by_source:
            by_source[name] = Share(name)
    whole = sum(weights.get(name, 1.0) for name in by_source) if weights else 0.0
    for share in by_source.values():
        share.asked = weights.get(share.name, 1.0) / whole if whole else None
    return _of_the_whole(by_source.values()), _of_the_whole(by_language.values())


def composition(lake: Lake, refs: Mapping[str, Ref]) -> list[dict[str, Any]]:
    """What there is to learn from, by `kind` (documents that train, dialogues, pairs), `source`, `licence`, `language`:
    `rows` and `tokens`, the latter None where they weren't counted. Most first within a kind.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from datalake.lake.funnel import tally
    from datalake.lake.parquet import read_table

    keys = ("source", "licence", "language")
    rows: list[dict[str, Any]] = []
    mixed, documents = _mixed(lake, refs), refs.get("documents")
    if mixed is not None and isinstance(documents, TableRef):
        parts = [read_table(path, ["id", "licence"]) for path in lake.files(documents)]
        known = pa.concat_tables(parts).combine_chunks()
        licence = known["licence"].combine_chunks().take(pc.index_in(mixed["id"], known["id"]))
        mixed = mixed.append_column("licence", licence).filter(pc.greater(mixed["trains"], 0))
        sums = [("trains", "sum"), ("tokens", "sum")]
        for row in mixed.group_by(list(keys)).aggregate(sums).to_pylist():
            tokens = None if row["tokens_sum"] is None else round(row["tokens_sum"])
            counts = {"rows": row["trains_sum"], "tokens": tokens}
            rows.append({"kind": "documents"} | {key: row[key] for key in keys} | counts)
    for name in ("conversations", "preferences"):
        if isinstance(ref := refs.get(name), TableRef):
            for values, count in tally(lake.files(ref), *keys).items():
                rows.append({"kind": name} | dict(zip(keys, values, strict=True)) | {"rows": count, "tokens": None})
    kinds = ("documents", "conversations", "preferences")
    return sorted(rows, key=lambda row: (kinds.index(row["kind"]), -row["rows"], [str(row[key]) for key in keys]))


def _mixed(lake: Lake, refs: Mapping[str, Ref]) -> Any:
    """The mixture's documents with `words` and `tokens` times their epochs, `own` words, and whether each `trains`;
    None where the run has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from datalake.lake.parquet import read_schema, read_table

    ref = refs.get("mixture")
    files = lake.files(ref) if isinstance(ref, TableRef) else []
    if not files or "words" not in read_schema(files[0]).names:  # as earlier versions had it
        return None
    columns = ["id", "source", "language", "split", "epochs", "words"]
    table = pa.concat_tables([read_table(path, columns) for path in files]).combine_chunks()
    lengths = _lengths(lake, refs.get("tokens"))
    if lengths is None:
        size = pa.nulls(len(table), pa.int64())
    else:
        size = lengths["length"].combine_chunks().take(pc.index_in(table["id"], lengths["id"])).fill_null(0)
    trains = pc.equal(table["split"], "train")
    return pa.table(
        {
            "id": table["id"],
            "source": table["source"],
            "language": table["language"],
            "trains": pc.cast(trains, pa.int64()),
            "own": pc.if_else(trains, table["words"], 0),
            "words": pc.multiply(table["epochs"], table["words"]),  # no epochs of what is held out
            "tokens": pc.multiply(table["epochs"], size),
        }
    )


def _of_the_whole(groups: Any) -> list[Share]:
    found = sorted(groups, key=lambda share: (-share.words, share.name))
    words = sum(share.words for share in found)
    tokens = sum(share.tokens or 0.0 for share in found)
    for share in found:
        share.share = share.words / words if words else 0.0
        share.token_share = (share.tokens or 0.0) / tokens if tokens else None
    return found


def _lengths(lake: Lake, tokens: Ref | None) -> Any:
    """Documents and their tokens (id, length), from the index of a run's token shards; None where there is none."""
    import pyarrow as pa

    from datalake.lake.parquet import read_table

    if not isinstance(tokens, FolderRef):
        return None
    try:
        tables = [read_table(index, ["id", "length"]) for index in token_indices(lake, tokens)]
    except (OSError, LostDataError, ValueError):  # gone or damaged since: words are told without them
        return None
    if not tables:
        return None
    # A long document may lie in several pieces.
    return pa.concat_tables(tables).group_by("id").aggregate([("length", "sum")]).rename_columns(["id", "length"])


def lines(by_source: Sequence[Share], by_language: Sequence[Share]) -> Iterator[str]:
    """The mixture as lines of a terminal."""
    if not by_source:
        return
    wide = max(len("mixture"), *(len(share.name) for share in by_source))
    yield f"{'mixture':<{wide}} {'asked':>7} {'words':>7} {'tokens':>7} {'epochs':>7} {'documents':>10} {'held out':>9}"
    for share in by_source:
        asked, tokens = _percent(share.asked), _percent(share.token_share)
        yield (
            f"{share.name:<{wide}} {asked:>7} {_percent(share.share):>7} {tokens:>7} {share.epochs:>7.2f}"
            f" {share.documents:>10,} {share.held_out:>9,}"
        )
    told = [f"{share.name} {_percent(share.share)}" for share in by_language[:8]]
    more = f" and {len(by_language) - 8} more" if len(by_language) > 8 else ""
    yield f"mixture by language, in words: {', '.join(told)}{more}"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.1%}"
