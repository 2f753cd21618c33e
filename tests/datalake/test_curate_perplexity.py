"""Perplexity: CCNet's normalisation by its steps, the formula by hand, real KenLM and sentencepiece where installed."""

from __future__ import annotations

import math
import random
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import world
from pydantic import ValidationError

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.scores.config import PerplexityModel
from datalake.curate.scores.perplexity import Models, normalise, perplexity, perplexity_of
from datalake.curate.what_if import NeedsRerunError, ask, check_edits
from datalake.document import Document, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.tables import RAW, to_table

PUNCTUATION = {
    "，。、？！": ",.,?!", "（）；：∶": "();::", "“”„«»「」《》": '"' * 9, "´’": "''", "–━►": "---", "～": "~",
    "〈〉": "<>", "【】％": "[]%",
}  # fmt: skip


def by_steps(text: str) -> str:
    """The same step by step: lower case, accents off, digits to 0, punctuation, control characters off."""
    text = "".join(c for c in unicodedata.normalize("NFD", text.strip().lower()) if unicodedata.category(c) != "Mn")
    text = re.sub(r"\d", "0", text)
    for those, these in PUNCTUATION.items():
        for one, other in zip(those, these, strict=True):
            text = text.replace(one, other)
    text = text.replace("—", " - ").replace("．", ". ").replace("…", "...")
    return "".join(c for c in text if not (ord(c) < 32 or 127 <= ord(c) < 160))


def odd_texts() -> list[str]:
    draw = random.Random(7)
    some = [
        "",
        "  \n",
        "Été 1984：«Crème brûlée»—12%…",
        "Line one\nLine two",
        "٣٤ Arabic １２ wide",
        "שָׁלוֹם",
        "🙂\ud800\u200b",
        "İ",
    ]
    some += ["".join(draw.choices("".join(PUNCTUATION) + "aÉ9\n\t\x85 .—．…", k=80)) for _ in range(50)]
    return some + [draw.randbytes(120).decode("utf-8", "surrogateescape") for _ in range(50)]


def test_normalisation_is_ccnets_step_by_step() -> None:
    assert normalise("Été 1984：«Crème»—12%…\n終") == 'ete 0000:"creme" - 00%...終'
    for text in odd_texts():
        assert normalise(text) == by_steps(text)


class Fake:
    """Every character a piece, every piece with probability 1/4, the end with 1/2."""

    def encode_as_pieces(self, text: str) -> list[str]:
        return [f"▁{c}" for c in text if c != " "]

    def score(self, line: str) -> float:
        return len(line.split()) * math.log10(1 / 4) + math.log10(1 / 2)


def test_the_formula_divides_by_pieces_and_the_end() -> None:
    fake = Models(Fake(), Fake())
    for text in ("a", "abc", "Some words\nand a line"):
        pieces = len(normalise(text).replace(" ", ""))
        assert perplexity(text, fake) == round((4**pieces * 2) ** (1 / (pieces + 1)), 1)
    for text in odd_texts():
        value = perplexity(text, fake)
        assert (value is None) == (not normalise(text))
        assert value is None or value >= 1
    assert perplexity("long " * 2_000_000, fake) == 4.0


def test_lines_run_on_without_a_break() -> None:
    assert perplexity("one\ntwo", Models(Fake(), Fake())) == perplexity("onetwo", Models(Fake(), Fake()))


FIRST = ("▁the", -0.25)  # after the beginning; all else backs off to single pieces


def arpa(path: Path, probabilities: dict[str, float]) -> Path:
    """A bigram model with one bigram: log10 probabilities by piece, `</s>` and `<unk>` among them."""
    lines = [f"{value}\t{word}\t0" for word, value in ({"<s>": -99.0} | probabilities).items()]
    body = "\n".join(lines)
    path.write_text(
        f"\\data\\\nngram 1={len(lines)}\nngram 2=1\n\n\\1-grams:\n{body}\n\n"
        f"\\2-grams:\n{FIRST[1]}\t<s> {FIRST[0]}\n\n\\end\\\n"
    )
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sentencepiece model of some prose, and a unigram KenLM model over its pieces."""
    pytest.importorskip("kenlm", reason="the extra `kenlm` isn't installed")
    sentencepiece: Any = pytest.importorskip("sentencepiece", reason="the extra `kenlm` isn't installed")
    folder = tmp_path_factory.mktemp("models")
    (folder / "text.txt").write_text("\n".join(world.prose(n).lower() for n in range(40)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "en.sp"), vocab_size=300, minloglevel=9, num_threads=1
    )
    cutter = sentencepiece.SentencePieceProcessor(model_file=str(folder / "en.sp.model"))
    words = {cutter.id_to_piece(k): -1.0 - k / 300 for k in range(3, 300)}
    return arpa(folder / "en.arpa", words | {"</s>": -1.5, "<unk>": -4.0}), folder / "en.sp.model"


def of(models: tuple[Path, Path], **more: Any) -> PerplexityModel:
    return PerplexityModel(model=str(models[0]), sentencepiece=str(models[1]), **more)


def test_real_models_give_what_their_tables_say(models: tuple[Path, Path]) -> None:
    import sentencepiece

    cutter = sentencepiece.SentencePieceProcessor(model_file=str(models[1]))
    rows = [line.split("\t") for line in models[0].read_text().splitlines() if line.count("\t") == 2]
    table = {word: float(value) for value, word, _ in rows}
    for text in (world.prose(500), "river", "The river", "the", "Zzyzx ünknown 12 €"):
        pieces = cutter.encode_as_pieces(normalise(text))
        total = sum(table.get(piece, table["<unk>"]) for piece in pieces) + table["</s>"]
        if pieces[0] == FIRST[0]:
            total += FIRST[1] - table[FIRST[0]]
        assert perplexity_of(text, of(models)) == pytest.approx(10 ** (-total / (len(pieces) + 1)), abs=0.051)
    for text in odd_texts():
        perplexity_of(text, of(models))


def documents() -> pa.Table:
    texts = [(world.prose(n), "en") for n in range(6)] + [("xq zvk 99 " * 60, "en"), (world.CHINESE, "zh"), (" ", "en")]
    rows = [
        Document(document_id("table", "t", str(k)), text, "table", f"t#{k}", language, 0.9)
        for k, (text, language) in enumerate(texts)
    ]
    return to_table(rows, RAW)


def test_curation_fills_the_metric_in_its_language_and_holds_documents_to_a_maximum(models: tuple[Path, Path]) -> None:
    config = CurateConfig(preset="none", perplexity={"en": of(models)})
    curation, _ = curate_batch(documents(), config)
    values = curation["perplexity"].to_pylist()
    assert values[:7] == [perplexity_of(text, of(models)) for text in documents()["text"].to_pylist()[:7]]
    assert values[7:] == [None, None]
    for maximum in (max(values[:6]), max(values[:6]) + 1, 1e6):
        strict = CurateConfig(preset="none", perplexity={"en": of(models, maximum=maximum)})
        rows = curate_batch(documents(), strict)[0]
        rejected = [value is not None and value >= maximum for value in values]
        assert rows["rule"].to_pylist() == ["perplexity" if bad else None for bad in rejected]
        # The ledger's answer is that of a rerun.
        _, after = ask(curation, config, strict)
        assert after.kept.tolist() == [not bad for bad in rejected]
    with pytest.raises(NeedsRerunError, match=r"curate\.perplexity\.model"):
        check_edits(curation, config, CurateConfig(perplexity={"en": of(models, model={"version": "another"})}))
    with pytest.raises(NeedsRerunError, match=r"curate\.perplexity"):
        check_edits(curation, config, CurateConfig(preset="none"))


def test_ccnet_asks_for_head_and_middle(models: tuple[Path, Path]) -> None:
    curation, _ = curate_batch(documents(), CurateConfig(preset="ccnet", perplexity={"en": of(models)}))
    for row in curation.to_pylist():
        wanted = row["perplexity"] is not None and row["perplexity"] >= 520
        assert ("max_perplexity_en" in row["rules"]) == wanted


def test_models_are_versioned_by_content_and_changed_or_wrong_ones_refused(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    copies = tuple(Path(shutil.copy(path, tmp_path)) for path in models)
    here, there = of(models), of((copies[0], copies[1]))
    assert fingerprint(here) == fingerprint(there)
    copies[0].write_text("no model")
    with pytest.raises(UserError, match="has changed since"):
        perplexity_of("text", there)
    with pytest.raises(UserError, match="is no KenLM model"):
        perplexity_of("text", of((copies[0], copies[1])))
    copies[1].write_text("no model")
    with pytest.raises(UserError, match="is no sentencepiece model"):
        perplexity_of("text", of((copies[0], copies[1])))
    copies[1].unlink()
    with pytest.raises(UserError, match=r"has changed since|there is no file"):
        perplexity_of("text", there)
    with pytest.raises(ValidationError, match=r"there is no file.*sentencepiece"):
        of((copies[0], copies[1]))


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "kenlm", None)
    (tmp_path / "x").write_text("x")
    with pytest.raises(UserError, match="pip install kenlm sentencepiece"):
        perplexity_of("text", of((tmp_path / "x", tmp_path / "x")))
