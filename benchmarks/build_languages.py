"""Writes `datalake/sources/languages.json`: which language a file's ending, name or interpreter belongs to.

    .venv/bin/python benchmarks/build_languages.py languages.yml

The file is `lib/linguist/languages.yml` of https://github.com/github-linguist/linguist, by which GitHub names
languages; the table that comes with Headwater is of August 2026. Of languages that share an ending the one whose first
ending it is counts, else a programming language, else the first by name. `formats` hold data or plain text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

FILE = Path(__file__).parents[1] / "datalake" / "sources" / "languages.json"
KINDS = ("programming", "markup", "prose", "data")
PLAIN = ("Text", "Gettext Catalog")  # prose to GitHub


def main(path: Path) -> None:
    languages = yaml.safe_load(path.read_text("utf-8"))
    found: dict[str, dict[str, tuple[tuple[object, ...], str]]] = {"endings": {}, "names": {}, "interpreters": {}}
    for language, facts in languages.items():
        for table, key in (("endings", "extensions"), ("names", "filenames"), ("interpreters", "interpreters")):
            for place, name in enumerate(facts.get(key, [])):
                if table == "endings" and "." in name[1:]:
                    continue
                rank = (place > 0 if table == "endings" else False, KINDS.index(facts["type"]), language)
                best = found[table].setdefault(name.lower(), (rank, language))
                found[table][name.lower()] = min(best, (rank, language))
    out: dict[str, object] = {
        table: {name: language.lower() for name, (_, language) in sorted(rows.items())} for table, rows in found.items()
    }
    formats = [name.lower() for name, facts in languages.items() if facts["type"] == "data" or name in PLAIN]
    FILE.write_text(json.dumps(out | {"formats": sorted(formats)}, indent=0, ensure_ascii=False) + "\n", "utf-8")
    print(f"{FILE}: {len(languages)} languages, " + ", ".join(f"{len(rows)} {table}" for table, rows in found.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
