"""`headwater what-if`: what other rules would keep, from the ledger, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import LostDataError, UserError, first_line
from datalake.lake.lake import Lake, TableRef
from datalake.lake.records import Manifest, StageRecord, find_manifest, manifests, read_record
from flows.output import as_json, as_table, command, line

if TYPE_CHECKING:
    from flows.recipe import Recipe

EXAMPLES = 5
SEED = 0
_NO_MATTER = {"vars", "runtime"}  # what they change is in other sections, or changes no verdict


def what_if(recipe: Path, overrides: Sequence[str], lake_folder: Path, json: bool) -> int:
    """Print what the changed recipe would keep beside what was kept; returns the exit status."""
    from flows.recipe import load

    if not any(not text.startswith("vars.") for text in overrides):
        raise UserError("say what to change: --set curate.thresholds.min_words=30, for instance")
    base = load(recipe, [text for text in overrides if text.startswith("vars.")])
    changed = load(recipe, overrides)
    lake = Lake(lake_folder).require()
    section = _section(base, changed)
    answer = (_curation if section == "curate" else _duplicates)(lake, recipe, base, changed)
    if json:
        as_json(answer)
    else:
        _print(answer)
    return 0


def _section(base: Recipe, changed: Recipe) -> str:
    """The one section that the question is about."""
    names = [
        name
        for name in type(base).model_fields
        if name not in _NO_MATTER and getattr(base, name) != getattr(changed, name)
    ]
    if base.curate_by_kind != changed.curate_by_kind and "curate" not in names and "sources" not in names:
        names.append("curate")
    others = [name for name in names if name not in ("curate", "deduplicate")]
    if others:
        raise UserError(f"`{others[0]}` is not asked about: what-if answers for curate and thresholds of deduplicate")
    if not names:
        raise UserError("nothing differs from the recipe: give another value with --set")
    if len(names) > 1:
        raise UserError("what curation keeps decides what is compared for duplicates: ask about one of them at a time")
    return names[0]


def _last_run(lake: Lake, recipe: Path, base: Recipe, configs: dict[str, Any]) -> tuple[Manifest, StageRecord]:
    """The last finished run of the corpus with these configs of stages, and the record of the last of these stages."""
    import json

    from datalake.identity import plain

    wanted = {stage: json.loads(json.dumps(plain(config))) for stage, config in configs.items()}
    *_, asked = wanted
    for manifest in reversed(manifests(lake)):
        if manifest.corpus != base.corpus:
            continue
        found = {
            report.stage: record
            for report in manifest.stages
            if report.stage in wanted and (record := read_record(lake, report.fingerprint or "")) is not None
        }
        if all(stage in found and found[stage].payload.get("config") == wanted[stage] for stage in wanted):
            return manifest, found[asked]
    raise UserError(
        f"no finished run of {base.corpus} in {lake.root} has the recipe as it stands: run it first, with"
        f" {command('run', recipe, '--until', asked, lake=lake.root)}"
    )


def _table(lake: Lake, record: StageRecord, name: str, columns: list[str] | None = None) -> Any:
    """Columns of a table that a stage wrote; those it doesn't have are left out."""
    from pyarrow import ArrowException

    from datalake.lake.parquet import dataset

    ref = record.outputs[name]
    assert isinstance(ref, TableRef)
    files = lake.files(ref)
    if not files:
        return lake.schema(ref).empty_table()
    try:
        table = dataset(files)
        there = columns and [column for column in columns if column in table.schema.names]
        return table.to_table(columns=there)
    except (OSError, ArrowException) as error:
        raise LostDataError(ref.table, first_line(error)) from None


def _curation(lake: Lake, recipe: Path, base: Recipe, changed: Recipe) -> dict[str, Any]:
    from datalake.curate.what_if import ask, columns_needed, sources_and_languages, tell

    before, after = base.curate_by_kind, changed.curate_by_kind
    trained = {"quality": base.quality} if base.quality else {}  # its model gave the metric that is asked about
    manifest, record = _last_run(lake, recipe, base, {**trained, "curate": before})
    groups = sources_and_languages([_table(lake, record, "curation", ["source", "language"])])
    curation = _table(lake, record, "curation", columns_needed(before, after, groups=groups))
    answer = tell(curation, *ask(curation, before, after), examples=EXAMPLES, seed=SEED)
    addresses = _addresses(lake, record, [one["id"] for side in answer["examples"].values() for one in side])
    for side in answer["examples"].values():
        for one in side:
            row = one.pop("row")
            one |= {"uri": addresses.get(one["id"]), "source": curation["source"][row].as_py()}
    return {
        "corpus": base.corpus,
        "run": manifest.run,
        "stage": "curate",
        "changes": _changes(before, after),
        **answer,
        "notes": _notes(lake, manifest, base),
    }


def _duplicates(lake: Lake, recipe: Path, base: Recipe, changed: Recipe) -> dict[str, Any]:
    from datalake.dedup.what_if import asks_of_meaning, check_threshold, tell, tell_of_meaning

    before, after = base.dedup_in_order, changed.dedup_in_order
    check_threshold(before, after)
    manifest, record = _last_run(lake, recipe, base, {"curate": base.curate_by_kind, "deduplicate": before})
    if asks_of_meaning(before, after):
        answer = tell_of_meaning(
            _table(lake, record, "duplicates", ["id", "duplicate_of"]),
            _files(lake, record.outputs["signatures"]),
            _files(lake, record.outputs["embeddings"]),
            [file for ref in record.inputs.get("curation", ()) for file in _files(lake, ref)],
            after,
            base.runtime.workers,
            int(base.runtime.memory_gb * (1 << 30)),
        )
    else:
        answer = tell(_table(lake, record, "pairs"), record.records_in, before, after, record.counts)
    sides = {side: sorted(answer.pop(f"{side}_ids"), key=_mixed)[:EXAMPLES] for side in ("gained", "lost")}
    curated = next(
        found
        for report in manifest.stages
        if report.stage == "curate" and (found := read_record(lake, report.fingerprint or "")) is not None
    )
    addresses = _addresses(lake, curated, [id for ids in sides.values() for id in ids])
    return {
        "corpus": base.corpus,
        "run": manifest.run,
        "stage": "deduplicate",
        "changes": _changes(before, after),
        **answer,
        "notes": answer["notes"] + _notes(lake, manifest, base),
        "examples": {side: [{"id": id, "uri": addresses.get(id)} for id in ids] for side, ids in sides.items()},
    }


def _files(lake: Lake, ref: Any) -> list[str]:
    assert isinstance(ref, TableRef)
    return lake.files(ref)


def _mixed(id: bytes) -> bytes:
    """A seeded order of ids."""
    import hashlib

    return hashlib.sha256(id + str(SEED).encode()).digest()


def _changes(before: Any, after: Any) -> dict[str, list[Any]]:
    """Each setting that differs, before and after."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return {name: [old[name], new[name]] for name in old if old[name] != new[name]}


def _notes(lake: Lake, manifest: Manifest, base: Recipe) -> list[str]:
    """What has to be said of the run that the answer is about."""
    notes = []
    last = find_manifest(lake, corpus=manifest.corpus)
    if last.run != manifest.run:
        notes.append(
            f"the answer is about run {manifest.run}: the last one, {last.run}, has other settings or ended early"
        )
    if manifest.recipe.get("sources") != base.model_dump(mode="json")["sources"]:
        notes.append("the run read other sources than the recipe names: the answer is about what it read")
    return notes


def _addresses(lake: Lake, record: StageRecord, ids: list[bytes]) -> dict[bytes, str]:
    """Addresses of documents that a curate stage judged."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    from datalake.lake.parquet import dataset

    raw = record.inputs["raw"][0]
    assert isinstance(raw, TableRef)
    files = lake.files(raw)
    if not ids or not files:
        return {}
    # Ids of one table are columns of few bytes: they are looked through, and addresses read where one is found.
    table = dataset(files)
    wanted = ds.field("id").isin(pa.array(ids, table.schema.field("id").type))
    rows = table.to_table(columns=["id", "uri"], filter=wanted).to_pylist()
    return {row["id"]: row["uri"] for row in rows}


# For people -----------------------------------------------------------------------------------------------------


def _print(answer: dict[str, Any]) -> None:
    line(f"{answer['corpus']}, run {answer['run']}: {_settings(answer['changes'])}")
    line(
        f"kept {answer['before']:,} -> {answer['after']:,} of {answer['documents']:,}"
        f" ({answer['gained']:,} gained, {answer['lost']:,} lost)"
    )
    for note in answer["notes"]:
        line(f"note: {note}")
    for title, key in (("source", "sources"), ("language", "languages")):
        rows = [row for row in answer.get(key, ()) if key == "sources" or row["gained"] or row["lost"]]
        if rows:
            line()
            as_table(
                [title, "documents", "kept", "would be", "gained", "lost"],
                [[r["name"], r["documents"], r["before"], r["after"], r["gained"], r["lost"]] for r in rows],
            )
    rules = [
        row
        for row in answer.get("rules", ())
        if row["rejects_before"] != row["rejects_after"] or row["fails_before"] != row["fails_after"]
    ]
    if rules:
        line()
        columns = ("rejects_before", "rejects_after", "gained", "lost", "fails_before", "fails_after")
        as_table(
            ["rule", "rejects first", "would", "gained", "lost", "fails", "would fail"],
            [[row["rule"], *(row[name] for name in columns)] for row in rules],
        )
    for side, title in (("gained", "gained, for instance"), ("lost", "lost, for instance")):
        shown = answer["examples"][side]
        if shown:
            line(f"\n{title}:")
        for one in shown:
            why = f"  ({', '.join(one['rules'])})" if one.get("rules") else ""
            line(f"  {one['uri'] or one['id'].hex()}{why}")


def _settings(changes: dict[str, list[Any]]) -> str:
    """What differs, in one line; of thresholds the ones that do."""
    parts = []
    for name, (old, new) in changes.items():
        if name.removesuffix("_version") in changes and name.endswith("_version"):
            continue  # of a file that is named itself
        if isinstance(old, dict) and isinstance(new, dict):
            for key in dict.fromkeys((*old, *new)):
                if old.get(key) != new.get(key):
                    was, then = (value.get(key, "as the preset has it") for value in (old, new))
                    setting = key if name == "thresholds" else f"{name}.{key}"
                    parts.append(f"{setting} {_value(was)} -> {_value(then)}")
        else:
            parts.append(f"{name} {_value(old)} -> {_value(new)}")
    return ", ".join(parts)


def _value(value: Any) -> str:
    if value in (None, "", []):
        return "not set"
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if isinstance(value, dict) and "op" in value:
        return f"{value['name']} ({value['metric']} {value['op']} {value['threshold']:g})"
    return f"{value:g}" if isinstance(value, float) else str(value)
