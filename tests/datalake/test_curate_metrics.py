"""Every metric equals its definition, written again in plain Python over strings and counters."""

from __future__ import annotations

import gzip
import json
import random
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencc import OpenCC

from datalake.curate.languages import STOP_WORDS
from datalake.curate.metrics.catalog import FAMILIES
from datalake.curate.metrics.measure import measure
from datalake.text.characters import CJK_TERMINALS, CLOSERS, stop_points, tables, terminal_points
from datalake.text.chinese import segment

SIMPLIFY = OpenCC("t2s").convert
TERMINALS = {chr(p) for p in terminal_points()}
STOPS = {chr(p) for p in stop_points()}
KANA = (re.compile("[\u3041-\u309f]+"), re.compile("[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]+"))
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

# The families whose definitions are written again here; others have tests of their own.
HERE = "gopher covered later fineweb c4 fineweb_lines shape scripts dolma c4_variants dclm chinese auto code asked"
NAMES = [metric.name for name in (*HERE.split(), "language") for metric in FAMILIES[name].metrics]


def lowered(text: str) -> str:
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def oracle_tokens(text: str, language: str) -> list[str]:
    if language in ("zh", "yue", "wuu"):
        return [stripped for piece in segment(text) if (stripped := piece.strip())]
    tokens = []
    for piece in text.split():
        while piece:
            run = next((m.end() for kana in KANA if (m := kana.match(piece))), 0)
            if not run and "\u3400" <= piece[0] <= "\u9fff":
                run = 1
            while not run or (
                run < len(piece)
                and not any(kana.match(piece[run - 1]) or kana.match(piece[run]) for kana in KANA)
                and not any("\u3400" <= c <= "\u9fff" for c in piece[run - 1 : run + 1])
            ):
                run += 1
            tokens.append(piece[:run])
            piece = piece[run:]
    return tokens


def strip_symbols(token: str) -> str:
    while token and not token[0].isalnum():
        token = token[1:]
    while token and not token[-1].isalnum():
        token = token[:-1]
    return token


def oracle_words(text: str, language: str) -> list[tuple[int, int, str]]:
    """(start, end, lower-cased) of the words n-grams are made of."""
    if language in ("zh", "yue", "wuu"):
        words, at = [], 0
        for piece in segment(text):
            if any(c.isalnum() for c in piece):
                word = piece.strip()
                start = at + piece.index(word)
                words.append((start, start + len(word), lowered(word)))
            at += len(piece)
        return words
    if language == "ja":
        words, at = [], 0
        for token in oracle_tokens(text, language):
            at = text.index(token, at)
            words += [
                (at + m.start(), at + m.end(), lowered(m.group()))
                for m in re.finditer(r"[\u3400-\u9fff]|[^\W_]+", token)
            ]
            at += len(token)
        return words
    return [(m.start(), m.end(), lowered(m.group())) for m in re.finditer(r"[\u3400-\u9fff]|[^\W_]+", text)]


def oracle_ngrams(text: str, words: list[tuple[int, int, str]]) -> dict[str, float]:
    result = {}
    total = sum(end - start for start, end, _ in words)
    for n in range(2, 11):
        grams = [tuple(word for _, _, word in words[k : k + n]) for k in range(len(words) - n + 1)]
        counts = Counter(grams)
        length = [sum(end - start for start, end, _ in words[k : k + n]) for k in range(len(grams))]
        most = max(counts.values(), default=1)
        if n < 5:
            tops = [k for k, gram in enumerate(grams) if counts[gram] == most and most > 1]
            joined = len(" ".join(counts.most_common(1)[0][0])) if tops else 0  # of equal counts the first counted
            result[f"top_{n}gram"] = most * max((length[k] for k in tops), default=0) / total
            result[f"later_top_{n}gram"] = most * joined / len(text)
            continue
        covered = {j for k, gram in enumerate(grams) if counts[gram] > 1 for j in range(k, k + n)}
        result[f"dup_{n}gram"] = sum(words[j][1] - words[j][0] for j in covered) / total
        repeating = sum(size for gram, size in zip(grams, length, strict=True) if counts[gram] > 1)
        result[f"repeat_{n}gram"] = repeating / max(1, sum(length))
        seen, again, k = set(), 0, 0
        while k < len(grams):
            if grams[k] in seen:
                again += length[k]
                k += n
            else:
                seen.add(grams[k])
                k += 1
        result[f"later_{n}gram"] = again / len(text)
    return result


def repeated(items: list[str], size: int) -> tuple[float, float, float, float, int]:
    counts = Counter(items)
    again = [item for k, item in enumerate(items) if item in items[:k]] if max(counts.values()) > 1 else []
    many = [item for item in items if counts[item] > 1]
    characters = sum(map(len, again))
    total = sum(map(len, items))
    return (
        len(many) / len(items),
        sum(map(len, many)) / total,
        len(again) / len(items),
        characters / size,
        characters,
    )


def oracle_sentences(line: str) -> int:
    ends = "".join(map(re.escape, sorted(TERMINALS)))
    closers = "".join(map(re.escape, CLOSERS))
    count, begin = 0, 0
    for m in re.finditer(f"[{ends}]+[{closers}]*", line):
        if m.start() < begin:
            continue
        rest = line[m.end() :]
        run = [c for c in m.group() if c in TERMINALS]
        # a closer may itself stand before further terminals: only the run's last terminal counts
        cjk = bool(run) and m.group().rstrip(CLOSERS)[-1:] in CJK_TERMINALS
        after = rest.lstrip()
        if not after or cjk or (len(after) < len(rest) and not after[0].islower()):
            count += 1
            begin = m.end()
    return count + bool(line[begin:].strip())


def unclosed(line: str) -> str:
    return line.rstrip(CLOSERS + "".join(chr(p) for p in range(0x3001) if chr(p).isspace()))


def holds_sentence(line: str) -> bool:
    """Whether a sentence ends in the line, or it has two full-width commas."""
    ends = "".join(map(re.escape, sorted(TERMINALS)))
    for m in re.finditer(f"[{ends}]+", line):
        rest = line[m.end() :].lstrip(CLOSERS)
        after = rest.lstrip()
        if m.group().endswith(".."):
            continue
        if not after or m.group()[-1] in CJK_TERMINALS or (len(after) < len(rest) and not after[0].islower()):
            return True
    return line.count("，") > 1


def oracle_prose(text: str, starts: list[int]) -> float:
    """The share of words, which begin at `starts`, in lines of prose or verse."""
    lines, at = [], 0
    for raw in text.split("\n"):
        if line := raw.strip():
            lines.append((line, sum(at <= start < at + len(raw) for start in starts)))
        at += len(raw) + 1
    prose = 0
    for k, (line, words) in enumerate(lines):
        plain = unclosed(line)
        if words < 4 or plain.endswith(("..", "…")):
            continue
        goes_on = k + 1 < len(lines) and lines[k + 1][0][0].islower()
        if plain[-1] in TERMINALS | {",", "，"} or (words >= 8 and (goes_on or holds_sentence(line))):
            prose += words
    return prose / len(starts)


def oracle_c4(lines: list[str]) -> dict[str, float | None]:
    result: dict[str, float | None] = dict.fromkeys((n for n in NAMES if n.startswith("c4_")), 0)
    kinds = ("c4", "c4p", "c4d", "fw")
    result |= {f"{kind}_{what}": 0 for kind in kinds for what in ("lines", "sentences", "lorem_ipsum", "curly_bracket")}
    kept = {kind: [] for kind in kinds}
    left_words = 0
    result["auto_lines"] = 0
    for line in lines:
        if any(len(word) > 1000 for word in line.split()):
            continue
        plain = re.sub(r"\[[0-9]*\]|\[edit\]|\[citation needed\]", "", line)
        terminal = plain.endswith((".", "?", "!", '"')) and not plain.endswith("...")
        wanted = {
            "c4": terminal and len(plain.split()) >= 5,
            "c4p": terminal and len(plain.split()) >= 3,
            "c4d": (terminal or plain.endswith("'")) and len(line.split()) >= 3,
            "fw": len(line.split()) >= 3,
        }
        low = lowered(plain)
        notice = "javascript" in low or any(phrase in low for phrase in POLICY)
        left = len(plain.split())
        result["auto_lines"] += left >= 3 and "lorem ipsum" not in low and not (notice and left <= 20)
        for kind in (k for k, want in wanted.items() if want):
            if "lorem ipsum" in low:
                result[f"{kind}_lorem_ipsum"] += 1
            elif "javascript" in low:
                if kind == "c4":
                    result["c4_javascript"] += 1
            elif "{" in plain:
                result[f"{kind}_curly_bracket"] += 1
            elif any(phrase in low for phrase in POLICY):
                if kind == "c4":
                    result["c4_policy"] += 1
            else:
                kept[kind].append(plain.rstrip())
                result[f"{kind}_sentences"] += oracle_sentences(plain)
                left_words += len(plain.split()) if kind == "fw" else 0
    result |= {f"{kind}_lines": len(lines) for kind, lines in kept.items()}
    fw = kept["fw"]
    result |= dict.fromkeys(("fw_line_punct", "fw_short_lines", "fw_char_dup", "fw_newline_ratio"))
    if fw:
        result["fw_line_punct"] = sum(line[-1:] in STOPS for line in fw if line) / len(fw)
        result["fw_short_lines"] = sum(len(line) <= 30 for line in fw) / len(fw)
        if any(fw):
            again = [line for k, line in enumerate(fw) if line in fw[:k]]
            result["fw_char_dup"] = sum(map(len, again)) / sum(map(len, fw))
        if left_words:
            result["fw_newline_ratio"] = (len(fw) - 1) / left_words
    return result


def words_in(line: str) -> int:
    return sum(any(map(str.isalnum, word)) for word in line.split())


def oracle_pieces(lines: list[str]) -> dict[str, float | None]:
    """Pieces by a scan of each white-space word's runs."""
    pieces, alpha = 0, 0
    for word in (word for line in lines for word in line.split()):
        runs = re.findall(r"[^\W_]+|[\W_]", word)
        groups: list[list[str]] = []  # runs that one of . / _ , : joins
        joined, dotted, after_run = False, False, False
        for k, run in enumerate(runs):
            if run[0].isalnum():
                if joined:
                    groups[-1].append(run)
                else:
                    groups.append([run])
                joined, after_run = False, True
                continue
            within = after_run and k + 1 < len(runs) and runs[k + 1][0].isalnum()
            apostrophe = within and run in "'’"
            abbreviation = after_run and run == "." and dotted
            again = not after_run and k and runs[k - 1] == run and run in ".-"
            if within and run in "./_,:":
                joined, dotted = True, dotted or run == "."
            elif not (apostrophe or abbreviation or again):
                pieces += 1
            after_run = False
        pieces += len(groups)
        alpha += sum(any(c.isalpha() for run in group for c in run) for group in groups)
    return {"alpha_pieces": alpha / pieces if pieces else None}


COUNTERS = "likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers"


def oracle_dclm(lines: list[str]) -> dict[str, float | None]:
    """RefinedWeb's line edits by regular expressions."""
    removed, kept = 0, 0
    for line in lines:
        capitals = sum(lowered(c) != c for c in line) / len(line)
        digits = sum(c.isalnum() and not c.isalpha() for c in line) / len(line)
        counter = re.match(rf"\W*[0-9](?:,|\.|[0-9])*(?:K|k|M|m|B|b)?\s+(?:{COUNTERS})\W*\Z", line)
        if words_in(line) < 2 or capitals > 0.5 or digits > 0.999999 or counter:
            removed += words_in(line)
            continue
        kept += 1
        if words_in(line) <= 10:
            low = lowered(line)
            removed += 3 * low.count("items in cart") + 2 * low.endswith("read more...") + low.startswith("sign-in")
    total = sum(map(words_in, lines))
    return {"dclm_lines": kept, "dclm_removed": removed / total if total else None}


def oracle_chinese(text: str) -> dict[str, float | None]:
    """ChineseWebText's measures by slices and OpenCC, a character at a time."""
    plain = re.sub("[ \n\t]", "", text)
    grams = [plain[k : k + 13] for k in range(len(plain) - 12)]
    counts = Counter(grams)
    return {
        "char_13gram": sum(counts[gram] > 1 for gram in grams) / len(grams) if grams else None,
        "traditional": sum(
            SIMPLIFY(c) != c != made
            for c, made in zip(text, SIMPLIFY(text.encode("utf-8", "replace").decode()), strict=True)
            if "\u3400" <= c <= "\u9fff"
        ),
    }


def oracle(text: str, language: str) -> dict[str, float | None]:
    """All metrics by their definitions in `catalog.py`, slow and plain."""
    result: dict[str, float | None] = dict.fromkeys(NAMES)
    tokens = oracle_tokens(text, language)
    result |= {"chars": len(text), "tokens": len(tokens), "lines": 0, "paragraphs": 0}
    words = [word for token in tokens if (word := strip_symbols(token))]
    result["words"] = len(words)
    if not text:
        return result
    if words:
        result["mean_word_length"] = sum(map(len, words)) / len(words)
    if tokens:
        result["hash_ratio"] = text.count("#") / len(tokens)
        result["ellipsis_ratio"] = (text.count("...") + text.count("…")) / len(tokens)
        result["alpha_words"] = sum(any(c.isalpha() for c in token) for token in tokens) / len(tokens)
        result["newline_ratio"] = text.count("\n") / len(tokens)
        result["median_word_length"] = statistics.median(min(len(token), 200) for token in tokens)
        result["symbol_words"] = sum("#" in token or "…" in token for token in tokens) / len(tokens)
        if words:
            result["symbol_ratio"] = (text.count("#") + text.count("...") + text.count("…")) / len(words)
    if language == "zh":
        result |= oracle_chinese(text)
    if language in ("ja", "ko"):
        result["stop_word_count"] = sum(text.count(word) for word in STOP_WORDS[language])
        result["stop_words"] = sum(word in text for word in STOP_WORDS[language])
    elif language in STOP_WORDS:
        found = {strip_symbols(token) or token for token in tokens}
        result["stop_words"] = len(found & set(STOP_WORDS[language]))
        result["stop_word_count"] = sum((strip_symbols(token) or token) in STOP_WORDS[language] for token in tokens)
        if words:
            result["stop_word_share"] = result["stop_word_count"] / len(words)
    ngram_words = oracle_words(text, language)
    if ngram_words:
        result |= oracle_ngrams(text, ngram_words)

    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    result["lines"] = len(lines)
    paragraphs = [p.strip() for p in re.split(r"\n(?:[^\S\n]*\n)+", text) if p.strip()]
    result["paragraphs"] = len(paragraphs)
    if lines:
        result["bullet_lines"] = sum(line.startswith(("●", "•", "*", "-")) for line in lines) / len(lines)
        result["ellipsis_lines"] = sum(line.endswith(("...", "…", ". . .")) for line in lines) / len(lines)
        result["line_punct"] = sum(line[-1] in STOPS for line in lines) / len(lines)
        result["short_lines"] = sum(len(line) <= 30 for line in lines) / len(lines)
        names = ("dup_line_frac", "dup_line_chars", "later_line_frac", "later_line_chars")
        *shares, again = repeated(lines, len(text))
        result |= dict(zip(names, shares, strict=True))
        result["char_dup"] = again / (len(text) - text.count("\n"))
        result["line_end"] = sum(unclosed(line)[-1:] in STOPS for line in lines if unclosed(line)) / len(lines)
        if ngram_words:
            result["prose"] = oracle_prose(text, [start for start, _, _ in ngram_words])
            result["within_10gram"] = max(0.0, result["later_10gram"] - result["later_line_chars"])
        names = ("dup_para_frac", "dup_para_chars", "later_para_frac", "later_para_chars")
        result |= dict(zip(names, repeated(paragraphs, len(text))[:4], strict=True))
        if language == "en":
            result |= oracle_c4(lines) | oracle_dclm(lines) | oracle_pieces(lines)
        result["chars_per_line"] = len(text) / len(lines)

    every = text.split("\n")
    every = every[:-1] if every[-1] == "" else every
    result["max_line"] = max(map(len, every))
    result["mean_line"] = sum(map(len, every)) / len(every)
    result["alnum_ratio"] = sum(c.isalnum() for c in text) / len(text)
    result["alpha_ratio"] = sum(c.isalpha() for c in text) / len(text)
    if pieces := re.findall(r"\w+|[^\w\s]+", text):
        result["alpha_per_token"] = sum(c.isalpha() for c in text) / len(pieces)
    result["xml_header"] = int("<?xml version=" in text[:100])
    result["han_ratio"] = len(re.findall("[\u4e00-\u9fa5]", text)) / len(text)
    result["kana_ratio"] = sum(len(m) for kana in KANA for m in kana.findall(text)) / len(text)
    result["hangul_ratio"] = len(re.findall("[\uac00-\ud7a3]", text)) / len(text)
    return result


def assert_equal(text: str, language: str) -> None:
    got, want = measure(text, language), oracle(text, language)
    for name in NAMES:
        assert got[name] == pytest.approx(want[name], abs=1e-12), f"{name} of {text[:200]!r} as {language}"


PIECES = (
    *("the", "The", "and", "of", "with", "have", "cat", "don't", "well-known", "3.14", "#", "##", "...", "…", ". . ."),
    *(
        "lorem ipsum",
        "JavaScript",
        "{",
        "}",
        "use cookies",
        "Privacy Policy",
        "[1]",
        "[edit]",
        "[citation needed]",
        "[x]",
    ),
    *("End.", "Why?", 'Yes!"', "etc. and", "z" * 30, "•", "-", "*", "_x_", "é", "naïve", "Ünï", "ß"),
    *(
        "我们",
        "的",
        "在北京大学",
        "學習",
        "。",
        "？",
        "！",
        "，",
        "·",
        "ひらがな",
        "カタカナ",
        "ー",
        "日本語",
        "한국어",
        "에서",
        "ไทย",
    ),
    *(
        "\u3000",
        "\xa0",
        "\t",
        "\n",
        "\n",
        "\n\n",
        "\n \n",
        "\r",
        "\u2028",
        "\x1c",
        "नमस्ते",
        "שלום",
        "مرحبا؟",
        "😀",
        "👩‍👩‍👧",
        "\ud800",
    ),
)
LANGUAGES = ("en", "zh", "ja", "ko", "de", "und")


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(("", " ", " ", "\n"))), max_size=60),
    st.sampled_from(LANGUAGES),
)
def test_metrics_equal_their_definitions_on_texts_made_of_hard_pieces(
    parts: list[tuple[str, str]], language: str
) -> None:
    assert_equal("".join(piece + gap for piece, gap in parts), language)


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=()), max_size=80), st.sampled_from(LANGUAGES))
def test_metrics_equal_their_definitions_on_any_characters(text: str, language: str) -> None:
    assert_equal(text, language)


C4_PIECES = (
    *(
        "one two three four five",
        "six Seven.",
        "why? Yes",
        "why? yes",
        'he said "no." Then',
        "it ended.) More",
        "。更多",
        "！Go",
    ),
    *(
        "x.",
        "end...",
        "[1]",
        "[edit].",
        "[citation needed]",
        "a b",
        "lorem ipsum",
        "javascript",
        "{",
        "use cookies",
        "z" * 999,
    ),
    *("zz", "\n", "\n", "\n", "."),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(C4_PIECES), st.sampled_from(("", " ", " ", " "))), max_size=30))
def test_c4_metrics_equal_their_definitions_on_lines_near_every_boundary(parts: list[tuple[str, str]]) -> None:
    assert_equal("".join(piece + gap for piece, gap in parts), "en")


DCLM_PIECES = (
    *(
        "1,234 likes",
        "5K views",
        "12.3M  followers!",
        "3 Likes",
        "7 likes here",
        "* 4 shares *",
        "9 cats",
        "2026",
        "77",
    ),
    *("items in cart", "Items In Cart 3", "Read more...", "sign-in", "Sign-in", "SIGN UP NOW", "Mixed CASE", "ÉTÉ"),
    *("one two three four five six seven eight", "nine ten", "word", "...", "a b", "\n", "\n", "\n", "١٢٣", "_1 likes"),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(DCLM_PIECES), st.sampled_from(("", " ", " ", "\n"))), max_size=30))
def test_dclm_metrics_equal_their_definitions_on_lines_near_every_boundary(parts: list[tuple[str, str]]) -> None:
    assert_equal("".join(piece + gap for piece, gap in parts), "en")


PROSE_PIECES = (
    *("one two three four", "five six seven eight", "Nine ten", "eleven.", "Twelve.", "why? No", "so it. ends", "etc."),
    *(
        "...",
        "…",
        "..",
        ".",
        ",",
        "，",
        "，",
        "。",
        "！",
        "他说。”",
        '."',
        ".)",
        "”",
        " ”",
        "用了三天",
        "看完这一本",
        "and on",
    ),
    *("\n", "\n", "\n", "\n\n"),
)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(PROSE_PIECES), st.sampled_from(("", " ", " "))), max_size=30),
    st.sampled_from(LANGUAGES),
)
def test_prose_equals_its_definition_on_lines_near_every_boundary(parts: list[tuple[str, str]], language: str) -> None:
    assert_equal("".join(piece + gap for piece, gap in parts), language)


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("The tram ran along the quay. It was late", 1),
        ("The tram ran along the quay past every stop", 0),
        ("The tram ran along the quay to the\nharbour and stopped there for a long night", 0.5),
        ("The tram ran along the quay. It was late and…", 0),
        ("Home News. Sport", 0),
        ("Shall I compare thee to a summer's day,", 1),
        ("He said: “The tram runs late.”", 1),
    ],
)
def test_prose_is_told_from_teasers_and_menus(line: str, share: float) -> None:
    assert measure(line, "en")["prose"] == pytest.approx(share, abs=1e-3)


PIECE_PARTS = (
    "a",
    "bc",
    "12",
    "3",
    ".",
    "..",
    "-",
    "--",
    "'",
    "’",
    "/",
    "_",
    ",",
    ":",
    "(",
    "$",
    "é",
    "中",
    "\u0301",
    " ",
    "\n",
)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECE_PARTS), max_size=30))
def test_pieces_equal_their_definition(parts: list[str]) -> None:
    assert_equal("".join(parts), "en")


@pytest.mark.parametrize(
    ("line", "pieces", "alpha"),
    [
        ("Don't say U.S. costs $3.14, well-known (really).", 15, 8),  # Don t counts twice, 3.14 has no letter
        ("at 10:30 a.m. see http://a.b/c -- no... yes/no", 13, 7),
        ("1, 2, 3", 5, 0),
    ],
)
def test_pieces_are_counted_by_hand(line: str, pieces: int, alpha: int) -> None:
    assert measure(line, "en")["alpha_pieces"] == pytest.approx(alpha / pieces)


def test_grams_of_13_characters_and_traditional_ones_by_hand() -> None:
    metrics = measure("一二三四五六七八九十甲乙丙丁\n" * 2, "zh")
    assert metrics["char_13gram"] == 4 / 16  # 28 characters hold 16 grams; those at 0, 1, 14 and 15 occur twice
    assert metrics["traditional"] == 0
    assert measure("我們愛讀書", "zh")["traditional"] == 4
    assert measure("乾隆年间的扭转乾坤、魏徵、哪吒", "zh")["traditional"] == 0  # as simplified Chinese writes them
    assert measure("乾隆\ud800的餅乾", "zh")["traditional"] == 2
    assert measure("十二个字没有十三字的一串", "zh")["char_13gram"] is None
    assert measure("a" * 60, "en")["char_13gram"] is None


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("No end at all here", 1),
        ("One sentence here. Another one there.", 2),
        ("The file is at example.com and not elsewhere.", 1),
        ("About 3.5 of them, approx. half, came.", 1),
        ('He said "go now." Then he left! Why?', 3),
        ("Mixed 我来了。他走了！Then it ends", 3),
        ("Wait... what did you say?!", 1),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(line: str, sentences: int) -> None:
    assert measure(line, "en")["fw_sentences"] == sentences


def test_c4_counts_words_after_citations_are_gone_and_fineweb_before() -> None:
    metrics = measure("one two three four [1] . \nand two [2]", "en")
    assert metrics["c4_lines"] == 1  # one two three four .
    assert metrics["fw_lines"] == 2
    assert measure("one two three [1] .", "en")["c4_lines"] == 0


def test_metrics_equal_their_definitions_where_much_repeats() -> None:
    rng = random.Random(5)
    for _ in range(40):
        vocabulary = [rng.choice("abcdのカ本年") * rng.randint(1, 4) for _ in range(rng.randint(1, 6))]
        text = "".join(
            rng.choice(vocabulary) + rng.choice((" ", " ", "", ", ", "\n", "\n\n")) for _ in range(rng.randint(1, 200))
        )
        assert_equal(text, rng.choice(LANGUAGES))


def test_words_of_japanese_ngrams_are_its_tokens() -> None:
    # は ends before 日: else the word would run on to the full stop, and no 5-gram of this sentence would repeat.
    sentence, size = "東京は日本の首都です。", 10  # 東 京 は 日 本 の 首 都 です
    metrics = measure(f"{sentence}世界でも大都市であり、{sentence}", "ja")
    assert metrics["words"] == 9 + 7 + 9  # 世 界 でも 大 都 市 であり
    assert metrics["later_9gram"] == size / (2 * 11 + 11)
    assert metrics["later_10gram"] == 0
    assert measure("a_b のX9年", "ja")["top_2gram"] == 0


def test_metrics_equal_their_definitions_on_real_pages(samples: Path) -> None:
    with gzip.open(samples / "cc" / "pages" / "pages-dev.jsonl.gz", "rt", encoding="utf-8") as stream:
        pages = [page for line in stream if (page := json.loads(line)).get("gold_text")]
    languages = Counter()
    for page in pages[::12]:
        language = page["lang"] if page["lang"] in LANGUAGES else "und"
        languages[language] += 1
        assert_equal(page["gold_text"][:4000], language)
    assert languages["en"] >= 5
    assert languages["zh"] >= 5


def test_one_known_text_by_hand() -> None:
    text = "the cat sat. the cat sat. the cat ran.\n- one\n- one\n\n#tag ..."
    metrics = measure(text, "en")
    assert metrics["lines"] == 4
    assert metrics["paragraphs"] == 2
    assert metrics["tokens"] == 15
    assert metrics["words"] == 12  # not -, - and ...
    assert metrics["stop_words"] == 1
    assert metrics["bullet_lines"] == 2 / 4
    assert metrics["ellipsis_lines"] == 1 / 4
    assert metrics["hash_ratio"] == 1 / 15
    assert metrics["ellipsis_ratio"] == 1 / 15
    assert metrics["dup_line_frac"] == 2 / 4
    assert metrics["later_line_frac"] == 1 / 4
    assert metrics["top_2gram"] == 3 * 6 / 36  # the cat, three times, of 36 characters of words
    assert metrics["fw_lines"] == 1
    assert metrics["fw_sentences"] == 1  # no upper case after the full stops
    assert metrics["c4_lines"] == 1


def test_what_counts_tokens_is_missing_in_a_language_written_without_spaces() -> None:
    metrics = measure("ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน", "th")
    assert metrics["words"] is None
    assert metrics["mean_word_length"] is None
    assert metrics["chars"] == 41


def test_c4_metrics_are_missing_where_the_text_is_not_english() -> None:
    assert measure("Das ist ein Satz mit acht schönen Wörtern.", "de")["c4_lines"] is None
    assert measure("This is a sentence with nine rather fine words.", "en")["c4_lines"] == 1


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "\n\n\n",
        "\x00",
        "...",
        "!?!?" * 1000,
        "\ud800",
        "\udc00\ud800",
        "مرحبا " * 100,
        "😀" * 100,
        "\u200d" * 50,
    ],
)
def test_no_text_raises(text: str, language: str) -> None:
    metrics = measure(text, language)
    assert metrics["chars"] == len(text)


def test_random_bytes_and_a_line_of_ten_million_characters_do_not_raise() -> None:
    rng = random.Random(1)
    for size in (1, 100, 10_000):
        for language in LANGUAGES:
            measure(rng.randbytes(size).decode("utf-8", "replace"), language)
            measure(rng.randbytes(size * 2 // 2 * 2).decode("utf-16-le", "surrogatepass"), language)
    metrics = measure("word " * 2_000_000, "en")
    assert metrics["words"] == 2_000_000
    assert metrics["max_line"] == 10_000_000
    assert measure("x" * 10_000_000, "und")["words"] == 1


def test_the_class_tables_cover_every_letter_and_digit_of_this_python() -> None:
    classes, lower = tables()
    for point in range(0, 0x110000, 7):
        character = chr(point)
        assert bool(classes[point] & 4) == character.isalnum()
        assert bool(classes[point] & 1) == character.isspace()
        low = character.lower()
        assert lower[point] == (ord(low) if len(low) == 1 else point)


def test_the_segmenter_loses_no_character() -> None:
    text = "我们在北京大学学习 NLP 3.14%，\u3000真的！\n他說：「為什麼」\t😀 x+y\r\n"
    assert "".join(segment(text)) == text
