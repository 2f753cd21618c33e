"""The rule sets of published corpora, exact to their own files, and how `auto` chooses among them.

Sources of the thresholds: Gopher (Rae et al. 2021, table A1 and section A.1.1), C4
(tensorflow_datasets/text/c4_utils.py), FineWeb (datatrove, examples/fineweb.py and its filters), FineWeb-2
(configs/{cmn_Hani,jpn_Jpan,kor_Hang}.yml and fineweb-2-pipeline.py), RefinedWeb and DCLM
(baselines_configs/{refinedweb,dclm_baseline_refinedweb,fasttext_filter}.yaml), CCNet (mine.py, data/cutoff.csv), Dolma
1.5 (mixing/cc-head.yaml, wiki), ChineseWebText (preprocess.py, fasttext/main.py), RedPajama and StarCoder (code), HPLT
(minimum length in characters).

`compat` chooses another published reading of a preset: `paper` where a paper says other numbers than its code (C4,
FineWeb), `datatrove` where the numbers are used with datatrove's formulas (Gopher, C4), `starcoder` for StarCoder's
filters of code in place of RedPajama's.

What a preset asks of a model (the quality classifiers of DCLM and ChineseWebText, CCNet's perplexity) or of lists the
user gives (C4's bad words, ChineseWebText's sensitive words, Dolma's personal data) is a rule like the others: it
applies where the recipe gives the model or the list, since the metric is missing where it doesn't.

English presets filter by language before they judge. Here that is the user's choice (`languages: [en]`); what such a
preset asks of English only (stop words, word length, letters per token, Latin terminal punctuation, C4's line edits,
FineWeb's thresholds on lines) carries `languages=("en",)` and never touches a document in another language. What is
left for those, length, symbols, bullets and repetition, holds in any language.

Units. FineWeb-2 set its Chinese thresholds on jieba's words, and so are these (through rjieba). Its Japanese ones
were set on Sudachi's words, where tokens here are characters' classes (ideograph, kana run): about as long, so they
are taken over. Its Korean ones were set on morphemes and tokens here are what spaces separate, about twice as long:
line breaks per token is left out for Korean. Its language scores are GlotLID's, a scale that lid.176 doesn't share:
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from datalake.curate.rules import Rule
from datalake.errors import UserError

Preset = Literal[
    "auto",
    "none",
    "gopher",
    "c4",
    "fineweb",
    "fineweb2",
    "refinedweb",
    "dclm",
    "ccnet",
    "dolma",
    "chinesewebtext",
    "code",
]
Compat = Literal["", "paper", "datatrove", "starcoder"]
LineEdits = Literal["none", "c4", "c4-paper", "c4-datatrove", "fineweb", "refinedweb"]
Repair = Literal["text", "no_urls", "code", "none"]

ENGLISH = ("en",)
CHINESE = ("zh", "yue", "wuu")  # as lid.176 names them; written Chinese, segmented alike
# Languages written without spaces for which there is no segmenter here: what counts tokens is missing for them.
UNSEGMENTED = ("th", "lo", "km", "my", "bo", "dz")

# Stop words by language. English: Gopher's eight, case-sensitive. The others: FineWeb-2's configs. Japanese and
# Korean ones are particles and endings inside tokens, so they are looked for in the text as they stand.
STOP_WORDS: dict[str, tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "zh": tuple("的年在月是和日了於·為有被人中为他與後也而由"),
    "ja": tuple("のにをはたてがとで年し・月れさ"),
    "ko": (*"의다이는에을한년하은를했고", "에서", "가", "있", "으로", "인", "월", "로", "되"),
}
for _language in CHINESE[1:]:
    STOP_WORDS[_language] = STOP_WORDS["zh"]


class RuleSet(NamedTuple):
    """What one kind of document is held to: its rules in order, and the line edits of those kept.

    With `code_apart` its prose alone is measured and edited, and the code in it (between lines of three backticks, as
    pages and Markdown have it) goes with the prose as it is.
    """

    name: str
    rules: tuple[Rule, ...]
    line_edits: LineEdits = "none"
    repair: Repair = "text"
    code_apart: bool = False


def _repetition_covered(source: str) -> tuple[Rule, ...]:
    """Gopher's repetition rules (table A1) on the covered family."""
    return (
        Rule("dup_line_frac", "dup_line_frac", "<=", 0.30, source),
        Rule("dup_para_frac", "dup_para_frac", "<=", 0.30, source),
        Rule("dup_line_chars", "dup_line_chars", "<=", 0.20, source),
        Rule("dup_para_chars", "dup_para_chars", "<=", 0.20, source),
        *(Rule(f"top_{n}gram", f"top_{n}gram", "<=", t, source) for n, t in ((2, 0.20), (3, 0.18), (4, 0.16))),
        *(Rule(f"dup_{n}gram", f"dup_{n}gram", "<=", t, source) for n, t in _GOPHER_DUP),
    )


def _repetition_later(
    source: str,
    line: float = 0.30,
    top: tuple[float, float, float] = (0.20, 0.18, 0.16),
    dup: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
    paragraphs: bool = True,
) -> tuple[Rule, ...]:
    """Repetition rules on the later family; FineWeb-2 has the paragraph and line-character rules off."""
    flat = (
        Rule("dup_para_frac", "later_para_frac", "<=", 0.30, source),
        Rule("dup_para_chars", "later_para_chars", "<=", 0.20, source),
    )
    return (
        *(flat if paragraphs else ()),
        Rule("dup_line_frac", "later_line_frac", "<=", line, source),
        *((Rule("dup_line_chars", "later_line_chars", "<=", 0.20, source),) if paragraphs else ()),
        *(Rule(f"top_{n}gram", f"later_top_{n}gram", "<=", t, source) for n, t in zip((2, 3, 4), top, strict=True)),
        *(Rule(f"dup_{n}gram", f"later_{n}gram", "<=", t, source) for n, t in zip(range(5, 11), dup, strict=True)),
    )


_GOPHER_DUP = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


def _quality(
    source: str,
    lengths: tuple[float, float] | None,
    alpha: float | None,
    stop_words: bool,
    languages: tuple[str, ...] | None,
    alpha_metric: str = "alpha_words",
) -> tuple[Rule, ...]:
    """Gopher's quality rules; word length, letters and stop words only for the given languages (None: all).

    Where the numbers were used with datatrove's formulas, what has no letter is counted among symbols, too
    (`alpha_pieces`).
    """
    rules = [
        Rule("min_words", "words", ">=", 50, source),
        Rule("max_words", "words", "<=", 100_000, source),
    ]
    if lengths:
        rules += [
            Rule("min_mean_word_length", "mean_word_length", ">=", lengths[0], source, languages),
            Rule("max_mean_word_length", "mean_word_length", "<=", lengths[1], source, languages),
        ]
    rules += [
        Rule("max_hash_ratio", "hash_ratio", "<=", 0.1, source),
        Rule("max_ellipsis_ratio", "ellipsis_ratio", "<=", 0.1, source),
        Rule("max_bullet_lines", "bullet_lines", "<=", 0.9, source),
        Rule("max_ellipsis_lines", "ellipsis_lines", "<=", 0.3, source),
    ]
    if alpha is not None:
        rules.append(Rule("min_alpha_words", alpha_metric, ">=", alpha, source, languages))
    if stop_words:
        rules.append(Rule("min_stop_words", "stop_words", ">=", 2, source, languages))
    return tuple(rules)


GOPHER = RuleSet(
    "gopher",
    (*_quality("Gopher A.1.1", (3, 10), 0.8, True, ENGLISH), *_repetition_covered("Gopher table A1")),
)

GOPHER_DATATROVE = RuleSet(
    "gopher-datatrove",
    (
        *_repetition_later("datatrove gopher_repetition_filter.py"),
        *_quality("datatrove gopher_quality_filter.py", (3, 10), 0.8, True, ENGLISH, "alpha_pieces"),
    ),
)


def _c4(name: LineEdits, source: str, metrics: str, sentences: int) -> RuleSet:
    """C4's page rules over the lines that one variant of its line rules keeps (`metrics`: their prefix)."""
    return RuleSet(
        name,
        (
            Rule("max_chars", "chars", "<=", 190_000, source),
            Rule("lorem_ipsum", f"{metrics}_lorem_ipsum", "==", 0, source, ENGLISH),
            Rule("curly_bracket", f"{metrics}_curly_bracket", "==", 0, source, ENGLISH),
            Rule("min_sentences", f"{metrics}_sentences", ">=", sentences, source, ENGLISH),
            Rule("max_toxic_words", "toxic_words", "<=", 0, "C4, list of bad words"),
        ),
        line_edits=name,
    )


C4 = _c4("c4", "C4 c4_utils.py", "c4", 3)
C4_PAPER = _c4("c4-paper", "C4, the paper's text", "c4p", 5)
C4_DATATROVE = _c4("c4-datatrove", "datatrove c4_filters.py", "c4d", 5)

_FINEWEB = "FineWeb examples/fineweb.py"
FINEWEB = RuleSet(
    "fineweb",
    (
        Rule("min_language_score", "language_score", ">", 0.65, _FINEWEB, ENGLISH),
        *_repetition_later(_FINEWEB),
        *_quality(_FINEWEB, (3, 10), 0.8, True, ENGLISH, "alpha_pieces"),
        Rule("lorem_ipsum", "fw_lorem_ipsum", "==", 0, _FINEWEB, ENGLISH),
        Rule("curly_bracket", "fw_curly_bracket", "==", 0, _FINEWEB, ENGLISH),
        Rule("min_sentences", "fw_sentences", ">=", 5, _FINEWEB, ENGLISH),
        Rule("min_line_punct", "fw_line_punct", ">=", 0.12, _FINEWEB, ENGLISH),
        Rule("max_short_lines", "fw_short_lines", "<=", 0.67, _FINEWEB, ENGLISH),
        Rule("max_char_dup", "fw_char_dup", "<=", 0.01, _FINEWEB, ENGLISH),
        Rule("max_newline_ratio", "fw_newline_ratio", "<=", 0.3, _FINEWEB, ENGLISH),
    ),
    line_edits="fineweb",
)


FINEWEB_PAPER = FINEWEB._replace(
    name="fineweb-paper",
    rules=tuple(
        rule._replace(threshold=0.1, source="FineWeb, the paper's text") if rule.name == "max_char_dup" else rule
        for rule in FINEWEB.rules
    ),
)


def _fineweb2(
    name: str,
    source: str,
    line: float,
    top: tuple[float, float, float],
    dup: tuple[float, ...],
    punct: float | None,
    newline: float | None,
    lengths: tuple[float, float] | None,
    alpha: float,
) -> RuleSet:
    """FineWeb-2's pipeline: repetition, FineWeb's rules (no short lines, char_dup 0.1), Gopher's quality rules."""
    rules = [
        *_repetition_later(source, line, top, dup, paragraphs=False),
        *([Rule("min_line_punct", "line_punct", ">=", punct, source)] if punct is not None else []),
        Rule("max_char_dup", "char_dup", "<=", 0.1, source),
        *([Rule("max_newline_ratio", "newline_ratio", "<=", newline, source)] if newline is not None else []),
        *_quality(source, lengths, alpha, True, None),
    ]
    return RuleSet(name, tuple(rules))


FINEWEB2_ZH = _fineweb2(
    "fineweb2-zh",
    "FineWeb-2 cmn_Hani.yml",
    line=0.287,
    top=(0.256, 0.201, 0.171),
    dup=(0.198, 0.182, 0.167, 0.154, 0.14, 0.127),
    punct=0.106,
    newline=0.178,
    lengths=(1, 5),
    alpha=0.735,
)
FINEWEB2_JA = _fineweb2(
    "fineweb2-ja",
    "FineWeb-2 jpn_Jpan.yml",
    line=0.328,
    top=(0.239, 0.196, 0.172),
    dup=(0.243, 0.225, 0.207, 0.19, 0.175, 0.159),
    punct=0.096,
    newline=0.13,
    lengths=(1, 6),
    alpha=0.759,
)
FINEWEB2_KO = _fineweb2(
    "fineweb2-ko",
    "FineWeb-2 kor_Hang.yml",
    line=0.374,
    top=(0.282, 0.228, 0.185),
    dup=(0.201, 0.184, 0.168, 0.154, 0.14, 0.127),
    punct=0.062,
    newline=None,
    lengths=(1, 6),
    alpha=0.791,
)
# What `auto` asks of Chinese beside FineWeb-2's rules. Names of bookmakers put into good text pass all of those.
SPAM = Rule("spam", "spam", "<=", 0.5, "half the probability (benchmarks/spam.py)", CHINESE)
CHINESE_WEB = RuleSet("chinese", (*FINEWEB2_ZH.rules, SPAM))
ENGLISH_WEB = RuleSet("english", FINEWEB.rules[1:], line_edits="fineweb")
# Languages whose own FineWeb-2 config isn't here: datatrove's defaults, without stop words, word length and the
# ending of lines.
FINEWEB2_OTHER = RuleSet(
    "fineweb2-other",
    (
        *_repetition_later("FineWeb-2 pipeline, datatrove defaults", paragraphs=False),
        Rule("max_char_dup", "char_dup", "<=", 0.1, "fineweb-2-pipeline.py"),
        Rule("max_newline_ratio", "newline_ratio", "<=", 0.3, "datatrove default"),
        *_quality("Gopher A.1.1", None, 0.8, False, None),
        Rule("min_chars", "chars", ">", 500, "HPLT: more than 500 characters", UNSEGMENTED),
    ),
)
_REFINEDWEB = "DCLM refinedweb.yaml"
REFINEDWEB = RuleSet(
    "refinedweb",
    (
        Rule("min_language_score", "language_score", ">=", 0.65, _REFINEDWEB, ENGLISH),
        Rule("min_words", "words", ">=", 50, _REFINEDWEB),
        Rule("max_words", "words", "<=", 100_000, _REFINEDWEB),
        Rule("min_mean_word_length", "mean_word_length", ">=", 3, _REFINEDWEB, ENGLISH),
        Rule("max_mean_word_length", "mean_word_length", "<=", 10, _REFINEDWEB, ENGLISH),
        Rule("max_symbol_ratio", "symbol_ratio", "<=", 0.1, _REFINEDWEB),
        Rule("max_bullet_lines", "bullet_lines", "<=", 0.9, _REFINEDWEB),
        Rule("max_ellipsis_lines", "ellipsis_lines", "<=", 0.3, _REFINEDWEB),
        Rule("min_alpha_words", "alpha_words", ">=", 0.8, _REFINEDWEB, ENGLISH),
        Rule("min_stop_words", "stop_word_count", ">=", 2, _REFINEDWEB, ENGLISH),
        *_repetition_covered(_REFINEDWEB),
        Rule("max_removed", "dclm_removed", "<=", 0.05, _REFINEDWEB, ENGLISH),
    ),
    line_edits="refinedweb",
    repair="no_urls",
)
DCLM = REFINEDWEB._replace(
    name="dclm",
    rules=(*REFINEDWEB.rules, Rule("min_quality", "quality", ">=", 0.018112, "DCLM fasttext_filter.yaml")),
)
# CCNet keeps three buckets by perplexity; head and middle are what those who build on it take (RedPajama-v2).
_CCNET_MIDDLE = {"en": 520, "zh": 1950, "ja": 1450, "fr": 330}
CCNET = RuleSet(
    "ccnet",
    (
        Rule("min_chars", "chars", ">=", 300, "CCNet mine.py, min_len"),
        Rule("min_language_score", "language_score", ">=", 0.5, "CCNet mine.py, lang_threshold"),
        *(
            Rule(f"max_perplexity_{language}", "perplexity", "<", most, "CCNet data/cutoff.csv, middle", (language,))
            for language, most in _CCNET_MIDDLE.items()
        ),
    ),
)
_DOLMA = "Dolma 1.5 cc-head.yaml"
DOLMA = RuleSet(
    "dolma",
    (
        Rule("min_words", "tokens", ">=", 50, _DOLMA),
        Rule("max_words", "tokens", "<=", 100_000, _DOLMA),
        Rule("min_median_word_length", "median_word_length", ">=", 3, _DOLMA, ENGLISH),
        Rule("max_median_word_length", "median_word_length", "<=", 10, _DOLMA, ENGLISH),
        Rule("max_symbol_words", "symbol_words", "<=", 0.1, _DOLMA),
        Rule("min_alpha_words", "alpha_words", ">=", 0.8, _DOLMA, ENGLISH),
        Rule("min_stop_words", "stop_word_count", ">=", 2, _DOLMA, ENGLISH),
        Rule("max_bullet_lines", "bullet_lines", "<=", 0.9, _DOLMA),
        Rule("max_ellipsis_lines", "ellipsis_lines", "<=", 0.3, _DOLMA),
        Rule("dup_line_frac", "dup_line_frac", "<=", 0.3, _DOLMA),
        Rule("dup_line_chars", "dup_line_chars", "<=", 0.3, _DOLMA),
        *(Rule(f"top_{n}gram", f"top_{n}gram", "<=", t, _DOLMA) for n, t in ((2, 0.20), (3, 0.18), (4, 0.16))),
        *(Rule(f"dup_{n}gram", f"repeat_{n}gram", "<=", t, _DOLMA) for n, t in _GOPHER_DUP),
        Rule("max_pii", "pii", "<=", 5, _DOLMA),
    ),
)
_CHINESEWEBTEXT = "ChineseWebText preprocess.py"
CHINESEWEBTEXT = RuleSet(
    "chinesewebtext",
    (
        Rule("min_language_score", "language_score", ">=", 0.5, "CCNet, as ChineseWebText runs it"),
        Rule("min_chars", "chars", ">=", 300, "CCNet, as ChineseWebText runs it"),
        Rule("min_chars_per_line", "chars_per_line", ">=", 10, _CHINESEWEBTEXT),
        Rule("min_han", "han_ratio", ">=", 0.30, _CHINESEWEBTEXT),
        Rule("traditional", "traditional", "==", 0, _CHINESEWEBTEXT),
        Rule("max_toxic", "toxic_ratio", "<=", 0.5, _CHINESEWEBTEXT),
        Rule("max_char_13gram", "char_13gram", "<=", 0.5, _CHINESEWEBTEXT),
        Rule("min_quality", "quality", ">", 0.5, "ChineseWebText fasttext/main.py"),
    ),
)
WIKI = RuleSet("wiki", (Rule("min_words", "words", ">=", 25, "Dolma 1.5: wiki documents under 25 words dropped"),))
BOOKS = RuleSet("books", (Rule("min_words", "words", ">=", 50, "Gopher A.1.1"),))
# Reference pages list names, signatures and inherited members: short lines, symbols and repeats are what they are
# made of.
DOCUMENTATION = RuleSet(
    "documentation",
    (
        Rule("min_words", "words", ">=", 25, "as wiki"),
        Rule("min_alpha_words", "alpha_words", ">=", 0.4, "half of Gopher's 0.8: signatures and rulers are symbols"),
    ),
    repair="code",
)
_REDPAJAMA = "RedPajama-1, github"
CODE = RuleSet(
    "code",
    (
        Rule("max_line", "max_line", "<=", 1000, _REDPAJAMA),
        Rule("mean_line", "mean_line", "<=", 100, _REDPAJAMA),
        Rule("min_alnum", "alnum_ratio", ">=", 0.25, _REDPAJAMA),
        Rule("min_alpha_per_token", "alpha_per_token", ">=", 1.5, _REDPAJAMA),
        Rule("xml_header", "xml_header", "==", 0, "StarCoder, basic filters"),
    ),
    repair="code",
)
_STARCODER = "StarCoder, basic filters"
STARCODER = RuleSet(
    "starcoder",
    (
        Rule("max_line", "max_line", "<=", 1000, _STARCODER),
        Rule("mean_line", "mean_line", "<=", 100, _STARCODER),
        Rule("min_alnum", "alnum_ratio", ">=", 0.25, _STARCODER),
        Rule("min_alpha", "alpha_ratio", ">=", 0.25, _STARCODER),
        Rule("xml_header", "xml_header", "==", 0, _STARCODER),
        Rule("min_comments", "comment_ratio", ">", 0.01, _STARCODER),
        Rule("max_comments", "comment_ratio", "<", 0.8, _STARCODER),
        Rule("min_html_ratio", "html_ratio", ">", 0.2, _STARCODER),
        Rule("min_html_text", "html_text", ">", 100, _STARCODER),
        Rule("min_data_chars", "data_chars", ">=", 100, _STARCODER),
        Rule("max_data_chars", "data_chars", "<=", 5000, _STARCODER),
    ),
    repair="code",
)
NONE = RuleSet("none", (), repair="none")

_BY_LANGUAGE = {**dict.fromkeys(CHINESE, FINEWEB2_ZH), "ja": FINEWEB2_JA, "ko": FINEWEB2_KO}
_AUTO_BY_LANGUAGE = {**_BY_LANGUAGE, "en": ENGLISH_WEB, **dict.fromkeys(CHINESE, CHINESE_WEB)}
_BY_SOURCE = {"code": CODE, "pydoc": DOCUMENTATION, "wikipedia": WIKI, "books": BOOKS}

_COMPAT: dict[tuple[str, str], RuleSet] = {
    ("gopher", "datatrove"): GOPHER_DATATROVE,
    ("c4", "paper"): C4_PAPER,
    ("c4", "datatrove"): C4_DATATROVE,
    ("fineweb", "paper"): FINEWEB_PAPER,
    ("code", "starcoder"): STARCODER,
}
_SETS: dict[str, tuple[RuleSet, ...]] = {
    "none": (NONE,),
    "gopher": (GOPHER,),
    "c4": (C4,),
    "fineweb": (FINEWEB,),
    "fineweb2": (FINEWEB2_ZH, FINEWEB2_JA, FINEWEB2_KO, FINEWEB2_OTHER),
    "refinedweb": (REFINEDWEB,),
    "dclm": (DCLM,),
    "ccnet": (CCNET,),
    "dolma": (DOLMA,),
    "chinesewebtext": (CHINESEWEBTEXT,),
    "code": (CODE,),
    "auto": (CODE, DOCUMENTATION, WIKI, BOOKS, CHINESE_WEB, FINEWEB2_JA, FINEWEB2_KO, ENGLISH_WEB, FINEWEB2_OTHER),
}


def compats(preset: Preset) -> list[Compat]:
    """The other readings of this preset that `compat` may name."""
    return [compat for compat in get_args(Compat) if (preset, compat) in _COMPAT]


def rule_sets(preset: Preset, compat: Compat = "") -> tuple[RuleSet, ...]:
    """All rule sets that documents under this preset may be held to."""
    return (_COMPAT[preset, compat],) if compat else _SETS[preset]


def choose(preset: Preset, source: str, language: str, compat: Compat = "") -> RuleSet:
    """The rule set for a document of this source kind and language.

    `auto` goes by source first (code, pydoc, wikipedia, books have their own), then by language: Chinese, Japanese and
    Korean to FineWeb-2's sets (Chinese with a rule against spam), English to FineWeb's but for its language score (that
    of another model; ingest calls the unsure `und`), everything else, `und` included, to rules that hold in any
    language. Those by language judge a document by its prose and leave the code in it as it is.
    """
    if compat:
        return _COMPAT[preset, compat]
    if preset == "auto":
        if source in _BY_SOURCE:
            return _BY_SOURCE[source]
        chosen = _AUTO_BY_LANGUAGE.get(language, FINEWEB2_OTHER)
        return chosen._replace(code_apart=True)
    if preset == "fineweb2":
        return _BY_LANGUAGE.get(language, FINEWEB2_OTHER)
    return _SETS[preset][0]


def with_thresholds(rules: RuleSet, thresholds: Mapping[str, float]) -> RuleSet:
    """The rule set with other numbers. A key is a rule's name, or `set/rule` where only one set is meant."""
    if not thresholds:
        return rules
    return rules._replace(
        rules=tuple(
            rule._replace(
                threshold=(t := thresholds.get(f"{rules.name}/{rule.name}", thresholds.get(rule.name, rule.threshold))),
                source=rule.source if t == rule.threshold else "recipe",
            )
            for rule in rules.rules
        )
    )


def check_thresholds(preset: Preset, thresholds: Mapping[str, float], compat: Compat = "") -> None:
    """Raise UserError where a key names no rule of the preset, or the preset has no such reading."""
    if compat and compat not in compats(preset):
        others = " or ".join(compats(preset)) or "none"
        raise UserError(f"curate.compat: preset {preset!r} has no reading {compat!r}; it has {others}")
    known = {
        name for s in rule_sets(preset, compat) for rule in s.rules for name in (rule.name, f"{s.name}/{rule.name}")
    }
    for name in sorted(set(thresholds) - known):
        names = ", ".join(sorted(known - {n for n in known if "/" in n})) or "none"
        raise UserError(f"curate.thresholds: preset {preset!r} has no rule {name!r}; its rules: {names}")
