"""The metrics of a document: their order, types and definitions. Data alone; `metrics.py` computes them.

Published filters share names and differ in formulas, so each metric has one definition, written here. Two families
measure repetition. The *covered* family (`dup_*`, `top_*`) is the set-coverage definition of DCLM and RedPajama-v2:
every occurrence of what repeats counts, over the characters of words. The *later* family (`later_*`) follows
datatrove: only what comes after the first occurrence counts, over the length of the text. A threshold belongs to the
family it was published with: Gopher's go with the first here, those of FineWeb and FineWeb-2 were set on the second.

Units. A *line* is stripped and not blank. A *paragraph* is a run of lines between blank lines. A *token* is what white
space separates, where a Chinese character and a run of hiragana or katakana are tokens of their own; in Chinese it is
what the segmenter gives. A *piece* of an English line is a run of letters and digits (joined to the next by one of `. /
_ , :` between them), `...`, a run of hyphens, or another symbol, but no apostrophe between letters and no full stop
that ends an abbreviation with others in it: close to the tokens of spaCy, on which datatrove counts. `words` counts
tokens with a letter or digit. An n-gram is over the project's words, the lower-cased matches of
`[\\u3400-\\u9fff]|[^\\W_]+`, in Chinese over the segmenter's, in Japanese cut where tokens are. A metric without
meaning for a document is missing (null), and a rule on a missing metric does not apply.
"""

from __future__ import annotations

from typing import NamedTuple

from datalake.curate.rules import CLASSIFIER


class Metric(NamedTuple):
    """A metric's name, whether it is a whole number, and its definition."""

    name: str
    whole: bool
    definition: str


_TOP = (2, 3, 4)
_DUP = (5, 6, 7, 8, 9, 10)

METRICS: tuple[Metric, ...] = (
    Metric("chars", True, "code points of the text"),
    Metric("lines", True, "lines that are not blank"),
    Metric("paragraphs", True, "runs of lines between blank lines"),
    Metric("tokens", True, "tokens, symbols included"),
    Metric("words", True, "tokens with a letter or digit (Gopher)"),
    Metric("mean_word_length", False, "mean length of these, stripped of what is neither letter nor digit at the ends"),
    Metric("hash_ratio", False, "# per token (Gopher)"),
    Metric("ellipsis_ratio", False, "... and … per token (Gopher)"),
    Metric("bullet_lines", False, "share of lines that begin with ● • * or - (Gopher; the set of DCLM)"),
    Metric("ellipsis_lines", False, "share of lines that end in ... or . . . or … (Gopher; the set of DCLM)"),
    Metric("alpha_words", False, "share of tokens with a letter (Gopher)"),
    Metric(
        "stop_words", True, "distinct stop words of the document's language, where a list is known (Gopher, FineWeb-2)"
    ),
    Metric("dup_line_frac", False, "lines that occur more than once, all occurrences / lines (DCLM)"),
    Metric("dup_line_chars", False, "characters of these / characters of lines (DCLM)"),
    Metric("dup_para_frac", False, "paragraphs that occur more than once, all occurrences / paragraphs (DCLM)"),
    Metric("dup_para_chars", False, "characters of these / characters of paragraphs (DCLM)"),
    *(
        Metric(
            f"top_{n}gram", False, f"most frequent {n}-gram: count x characters / characters of words; 0 if once (DCLM)"
        )
        for n in _TOP
    ),
    *(
        Metric(f"dup_{n}gram", False, f"characters of words in any repeated {n}-gram / characters of words (DCLM)")
        for n in _DUP
    ),
    Metric("later_line_frac", False, "lines seen before / lines (datatrove)"),
    Metric("later_line_chars", False, "characters of these / characters of the text (datatrove)"),
    Metric("later_para_frac", False, "paragraphs seen before / paragraphs (datatrove)"),
    Metric("later_para_chars", False, "characters of these / characters of the text (datatrove)"),
    *(
        Metric(
            f"later_top_{n}gram",
            False,
            f"most frequent {n}-gram, the first of several: count x (its words and a space between them) / characters; "
            "0 if once (datatrove)",
        )
        for n in _TOP
    ),
    *(
        Metric(
            f"later_{n}gram",
            False,
            f"{n}-grams seen before, not overlapping: characters of their words / characters (datatrove)",
        )
        for n in _DUP
    ),
    Metric(
        "line_punct", False, "share of lines that end in a terminal mark of any script, no quotation mark (FineWeb)"
    ),
    Metric("short_lines", False, "share of lines of at most 30 characters (FineWeb)"),
    Metric("char_dup", False, "characters of lines seen before / characters but line breaks (FineWeb)"),
    Metric("newline_ratio", False, "line breaks per token (FineWeb)"),
    Metric("c4_lines", True, "lines that C4's line rules keep (5 words, terminal punctuation)"),
    Metric("c4_sentences", True, "sentences on these lines"),
    Metric("c4_javascript", True, "lines that C4 drops for the word javascript"),
    Metric("c4_policy", True, "lines that C4 drops for a cookie or policy phrase"),
    Metric("c4_lorem_ipsum", True, "lines with lorem ipsum that reach C4's check for it"),
    Metric("c4_curly_bracket", True, "lines with { that reach C4's check for it"),
    Metric("fw_lines", True, "lines that FineWeb's variant of C4's line rules keeps (3 words, any ending)"),
    Metric("fw_sentences", True, "sentences on these lines"),
    Metric("fw_lorem_ipsum", True, "as c4_lorem_ipsum, for FineWeb's variant"),
    Metric("fw_curly_bracket", True, "as c4_curly_bracket, for FineWeb's variant"),
    Metric("fw_line_punct", False, "line_punct of the text of these lines: FineWeb measures after C4's edits"),
    Metric("fw_short_lines", False, "short_lines of the text of these lines"),
    Metric("fw_char_dup", False, "char_dup of the text of these lines"),
    Metric("fw_newline_ratio", False, "line breaks per white-space word of the text of these lines"),
    Metric("max_line", True, "characters of the longest line (RedPajama, code)"),
    Metric("mean_line", False, "mean characters of all lines, blank ones included (RedPajama, code)"),
    Metric("alnum_ratio", False, "letters and digits / characters (RedPajama, code)"),
    Metric("alpha_ratio", False, "letters / characters (StarCoder)"),
    Metric("alpha_per_token", False, r"letters per match of \w+|[^\w\s]+ (RedPajama, code)"),
    Metric("xml_header", True, "1 where <?xml version= stands in the first 100 characters (StarCoder)"),
    Metric("han_ratio", False, r"characters in [\u4e00-\u9fa5] / characters (ChineseWebText)"),
    Metric("kana_ratio", False, "hiragana and katakana / characters"),
    Metric("hangul_ratio", False, "hangul syllables / characters"),
    Metric("median_word_length", False, "median length of tokens, symbols included (Dolma)"),
    Metric("symbol_words", False, "share of tokens that hold # or … (Dolma)"),
    Metric("symbol_ratio", False, "#, ... and … together per word (DCLM)"),
    Metric("stop_word_count", True, "occurrences of stop words, where a list is known (DCLM, Dolma)"),
    *(
        Metric(f"repeat_{n}gram", False, f"characters of {n}-grams that repeat / of all {n}-grams (Dolma)")
        for n in _DUP
    ),
    Metric("c4p_lines", True, "lines that C4's line rules as its paper has them keep (3 words, terminal mark)"),
    Metric("c4p_sentences", True, "sentences on these lines"),
    Metric("c4p_lorem_ipsum", True, "as c4_lorem_ipsum, for the paper's variant"),
    Metric("c4p_curly_bracket", True, "as c4_curly_bracket, for the paper's variant"),
    Metric("c4d_lines", True, "lines that datatrove's variant keeps (3 words, terminal punctuation or an apostrophe)"),
    Metric("c4d_sentences", True, "sentences on these lines"),
    Metric("c4d_lorem_ipsum", True, "as c4_lorem_ipsum, for datatrove's variant"),
    Metric("c4d_curly_bracket", True, "as c4_curly_bracket, for datatrove's variant"),
    Metric("dclm_lines", True, "lines that RefinedWeb's line rules keep (capitals, digits, counters, 2 words; DCLM)"),
    Metric("dclm_removed", False, "share of words that RefinedWeb's line edits remove (DCLM)"),
    Metric("alpha_pieces", False, "share of pieces with a letter, symbols being pieces, too (datatrove)"),
    Metric("chars_per_line", False, "characters / lines (ChineseWebText)"),
    Metric("char_13gram", False, "13-character grams that repeat / all of them, in Chinese (ChineseWebText)"),
    Metric(
        "traditional", True, "characters of the traditional script alone, where they stand; Chinese (ChineseWebText)"
    ),
    Metric(
        "prose",
        False,
        "share of n-grams' words in lines of prose (8 of them, and a sentence that ends there or goes on in lower case "
        "in the next line, or two full-width commas) or verse (4, with a terminal mark or comma at the end), but for "
        "lines that end in an ellipsis",
    ),
    Metric("line_end", False, "as line_punct, after quotation marks and brackets that close the line are left out"),
    Metric("stop_word_share", False, "stop words per word, where a list of words that are tokens is known"),
    Metric("within_10gram", False, "later_10gram less later_line_chars, at least 0: what repeats but for whole lines"),
    Metric(
        "auto_lines",
        True,
        "lines that the line edits of `auto` keep (3 words beside citations, no notice of cookies or JavaScript)",
    ),
    Metric(
        "comment_ratio",
        False,
        "comments and docstrings / characters; Python, Java, JavaScript (StarCoder)",
    ),
    Metric("html_text", True, "characters a reader sees; HTML files (StarCoder)"),
    Metric("html_ratio", False, "these / characters; HTML files (StarCoder)"),
    Metric("data_chars", True, "code points of JSON and YAML files (StarCoder)"),
    Metric("quality", False, "probability of the good label by the quality classifier, where the recipe has one"),
    Metric("perplexity", False, "KenLM perplexity as CCNet computes it, where the recipe gives a model"),
    Metric("toxic_words", True, "occurrences of words on the user's lists (C4)"),
    Metric("toxic_ratio", False, "distinct words of these lists / lines (ChineseWebText)"),
    Metric("spam", False, "probability that a Chinese text is gambling or search-engine spam (spam.py)"),
    Metric("pii", True, "spans of personal data of the kinds the recipe names (Dolma)"),
    Metric("language_score", False, "confidence of the language as ingest found it; missing where none was computed"),
)

NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)

# What the recipe's own rules ask about, in columns of their own.
_OWN = {
    "blocked": "entries of the block lists that its address is on",
    "contaminated_share": "share of its words in overlaps with evaluation sets",
}


def definition(name: str) -> str:
    """What a metric says, for people; also of those that the recipe's own rules ask about."""
    found = next((metric.definition for metric in METRICS if metric.name == name), _OWN.get(name))
    return found or f"score by the classifier {name.removeprefix(CLASSIFIER)}"
