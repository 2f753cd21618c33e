r"""Toxic words: how often those on the user's lists stand in a text.

As C4 has it (tensorflow_datasets/text/c4_utils.py), a word counts between characters that are no `\w`, in Chinese,
Japanese and Thai anywhere, and a few words that C4 allows in these languages don't count. ChineseWebText
(preprocess.py) divides the number of distinct words by the lines.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from pathlib import PurePosixPath

from datalake.curate.checks.lists import words_of_file
from datalake.curate.checks.lists_config import TOXIC, ToxicConfig, list_files
from datalake.curate.checks.user_files import Files, version_of
from datalake.curate.languages import CHINESE
from datalake.errors import UserError
from datalake.identity import canonical
from datalake.text.automaton import Automaton

UNBOUNDED = ("ja", "th", *CHINESE)
# C4's allow-list.
_ALLOWED = {"ja": ("sm", "グロ", "女の子"), **dict.fromkeys(CHINESE, ("性",))}
# Names of lists by language: two letters, or one of these (of LDNOOBW's three-letter names), as lid.176 names them.
_LANGUAGE = re.compile(r"[a-z]{2}|yue|wuu|fil|kab|tlh")
_AS = {"fil": "tl"}
_ALL = ""


class ToxicWords:
    """The lists of a recipe, ready to be counted in texts."""

    def __init__(self, files: Files):
        """Reads all files. Raises UserError where one can't be read, isn't UTF-8 or has no word."""
        self._lists: dict[str, list[str]] = defaultdict(list)
        self._automata: dict[str, Automaton] = {}
        for name, path in files:
            stem = PurePosixPath(name).stem
            self._lists[_AS.get(stem, stem) if _LANGUAGE.fullmatch(stem) else _ALL] += words_of_file(path, TOXIC)

    def count(self, text: str, language: str) -> tuple[int, int] | None:
        """(occurrences, distinct words) of the lists for this language and for all; None where there is no list.

        Words that overlap each count.
        """
        automaton = self._automata.get(language)
        if automaton is None:
            own = self._lists.get(language) or (self._lists.get("zh") if language in CHINESE else None) or []
            allowed = _ALLOWED.get(language, ())
            words = [word for word in (*own, *self._lists.get(_ALL, ())) if word not in allowed]
            automaton = self._automata[language] = Automaton(words)
        if not automaton.words:
            return None
        hits = automaton.look(text.lower(), bounded=language not in UNBOUNDED)
        return hits.occurrences, hits.distinct


_lock = threading.Lock()
_held: dict[bytes, ToxicWords] = {}


def toxic_words_of(config: ToxicConfig) -> ToxicWords:
    """The lists of a config, read once in a process.

    Raises:
        UserError: where a list can't be read, or the files are not those the config was made with.
    """
    key = canonical(config)
    with _lock:
        if key not in _held:
            files = list_files(list(config.paths), TOXIC)
            if version_of([(f"paths:{name}", path) for name, path in files], TOXIC) != config.lists_version:
                raise UserError(f"{TOXIC}: the lists have changed meanwhile, start the run anew")
            _held.clear()
            _held[key] = ToxicWords(files)
        return _held[key]
