"""Chinese wikitext in one variant: `-{...}-` markup, a page's own conversion rules, and script conversion (OpenCC).

Syntax as MediaWiki's Writing systems/Syntax, Help:高级字词转换语法 and Template:NoteTA describe it.
A page's rules replace each form of a word by the chosen variant's before OpenCC converts the rest; what `-{...}-`
wrote, code, formulas, text in other languages and runs with kana stay as they are.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

# A variant's order of preference among the forms that a rule offers.
VARIANTS = {
    "zh-hans": ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "zh-cn": ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "zh-sg": ("zh-sg", "zh-my", "zh-hans", "zh-cn", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "zh-hant": ("zh-hant", "zh-tw", "zh-hk", "zh-mo", "zh", "zh-hans", "zh-cn", "zh-sg", "zh-my"),
    "zh-tw": ("zh-tw", "zh-hant", "zh-hk", "zh-mo", "zh", "zh-hans", "zh-cn", "zh-sg", "zh-my"),
    "zh-hk": ("zh-hk", "zh-mo", "zh-hant", "zh-tw", "zh", "zh-hans", "zh-cn", "zh-sg", "zh-my"),
}
_NAMES = {
    "zh-hans": "简体", "zh-cn": "大陆简体", "zh-sg": "新加坡简体", "zh-my": "大马简体", "zh-hant": "繁體",
    "zh-tw": "臺灣正體", "zh-hk": "香港繁體", "zh-mo": "澳門繁體", "zh": "不转换",
}  # fmt: skip

# OpenCC's configurations: (script only, with the words usual in the region)
CONFIGURATIONS = {
    "zh-hans": ("t2s", "t2s"),
    "zh-cn": ("t2s", "tw2sp"),
    "zh-sg": ("t2s", "t2s"),
    "zh-hant": ("s2t", "s2t"),
    "zh-tw": ("s2tw", "s2twp"),
    "zh-hk": ("s2hk", "s2hkp"),
}

LONGEST_WORD = 100  # characters of a word that a page has a rule for

# Private use: what stands between them is written as meant and isn't converted.
KEEP, END = "\ue004", "\ue005"
MARKS = re.compile(f"[{KEEP}{END}]")

_MARKUP = re.compile(r"-\{(?!\{)((?:[^}-]++|-(?!\{(?!\{))|\}(?!-))*+)\}-")
_FLAGS = re.compile(r"[ ;A-Z+\-]*")
_VARIANT_LIST = re.compile(r"\s*+zh(?:-[a-z]+)?(?:\s*+;\s*+zh(?:-[a-z]+)?)*+\s*+")
_RULES = re.compile(r";(?=\s*+zh(?:-[a-z]++)?\s*+:|[^;:]*=>|\s*+$)")
_VARIANT = re.compile(r"zh(?:-[a-z]+)?")
_NOTE = re.compile(
    r"\{\{\s*(?:NoteTA|NoteTA-lite|NoteTA/[a-z]+|全文字[词詞][转轉][换換])\s*((?:\|(?:[^{}]++|\{\{[^{}]{0,200}\}\})*+)?)\}\}\s*",
    re.IGNORECASE,
)
# Kana with the ideographs before, from the first of these on, and whatever else follows.
_KANA_RUN = (
    r"(?<![\u3400-\u9fff\u3005\u30fc])[\u3400-\u9fff\u3005\u30fc]*+"
    r"[\u3041-\u30fa][\u3005\u3041-\u30ff\u3400-\u9fff]*"
)
_KEPT = re.compile(f"{KEEP}[^{KEEP}{END}]*{END}|{_KANA_RUN}")
_CHINESE = re.compile("[\u3400-\u9fff]")


class Page(NamedTuple):
    """Wikitext with its variant markup resolved, and the page's own rules: form of a word -> the variant's form."""

    text: str
    rules: dict[str, str]


def choose_variant(text: str, variant: str) -> str:
    """The text with each `-{...}-` replaced by the form for one variant of Chinese (its rules for titles vanish)."""
    return MARKS.sub("", resolve(text, variant).text)


def resolve(text: str, variant: str) -> Page:
    """Wikitext for one variant. What `-{...}-` wrote stands between `KEEP` and `END`."""
    order = VARIANTS.get(variant, VARIANTS["zh-cn"])
    rules: dict[str, str] = {}
    if "{{" in text:
        text = _NOTE.sub(lambda match: _note(match[1], order, rules), text)
    if "-{" not in text:
        return Page(text, rules)

    def form(match: re.Match[str]) -> str:
        shown = _form(MARKS.sub("", match[1]), order, rules)
        # not around markup: brackets must find their partners, and lines their beginnings
        return f"{KEEP}{shown}{END}" if shown and not re.search(r"[\[\]{}|\n\ue000]", shown) else shown

    for _ in range(4):  # rules inside rules, innermost first
        text, found = _MARKUP.subn(form, text)
        if not found:
            break
    return Page(text, rules)


def _note(arguments: str, order: tuple[str, ...], rules: dict[str, str]) -> str:
    """`{{NoteTA|G1=IT|1=zh-cn:软件;zh-tw:軟體|T=...}}`: its numbered rules are the page's; groups live in the wiki."""
    for argument in arguments.split("|")[1:]:
        name, equals, value = argument.partition("=")
        if equals and not re.fullmatch(r"\s*\d{1,3}\s*", name):
            if not (value.startswith(">") and "zh" in value):  # `甲=>zh-cn:乙` without a number
                continue
            value = argument
        elif not equals:
            value = argument
        _learn(re.sub(r"^\s*-\{(?:[A-Z]\|)?|\}-\s*$", "", value), order, rules)
    return ""


def _learn(content: str, order: tuple[str, ...], rules: dict[str, str]) -> None:
    """Add what a rule says to the page's rules."""
    forms, one_way = _parse(content)
    if forms and (target := next((forms[name] for name in order if forms.get(name)), "")):
        for form in forms.values():
            if form and form != target:
                rules[form] = target
    for source, targets in one_way.items():
        # one-way rules name the variants they are for; others keep the word
        names = order[: next(i for i, name in enumerate(order) if name == "zh")]
        if target := next((targets[name] for name in names if targets.get(name)), ""):
            rules[source] = target


def _forget(content: str, rules: dict[str, str]) -> None:
    forms, one_way = _parse(content)
    for form in (*forms.values(), *one_way):
        rules.pop(form, None)


def _parse(content: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The forms of a two-way rule by variant, and those of one-way rules by the word they replace."""
    forms: dict[str, str] = {}
    one_way: dict[str, dict[str, str]] = {}
    for rule in _RULES.split(content):
        head, colon, form = rule.partition(":")
        source, _, name = head.rpartition("=>")
        if colon and ";" not in head and _VARIANT.fullmatch(name := name.strip()):
            if source := source.strip():
                one_way.setdefault(source, {}).setdefault(name, form.strip())
            else:
                forms.setdefault(name, form.strip())
    return forms, one_way


def _form(content: str, order: tuple[str, ...], rules: dict[str, str]) -> str:
    """What one `-{flags|rules}-` shows; page-wide rules are learned."""
    flags, bar, body = content.partition("|")
    if bar and _FLAGS.fullmatch(flags):
        if "-" in flags:  # taken back
            _forget(body, rules)
            return ""
        if "T" in flags:  # the page's title
            return ""
        if "R" in flags:  # raw: shown in every variant as it stands
            return body
        if "N" in flags:  # a variant's name
            return _NAMES.get(body.strip().lower(), "")
        if "D" in flags:  # the rule itself, to be read
            forms, _ = _parse(body)
            return "；".join(f"{_NAMES.get(name, name)}：{form}" for name, form in forms.items())
        if "A" in flags or "H" in flags:
            _learn(body, order, rules)
        if "H" in flags:  # hidden
            return ""
    elif bar and _VARIANT_LIST.fullmatch(flags):
        return body
    else:
        body = content
    forms, one_way = _parse(body)
    if not forms and one_way:
        forms = next(iter(one_way.values()))
    if not forms:
        return body.strip()
    return next((forms[name] for name in order if forms.get(name)), "")


@functools.cache
def _converter(name: str) -> Any:
    from opencc import OpenCC

    return OpenCC(name)


def convert(text: str, variant: str, conversion: str, rules: dict[str, str]) -> str:
    """Text in a variant's script, or with its vocabulary too; marks of `resolve` are taken off.

    To traditional script a line is only converted if it holds a character that is simplified and nothing else: 后, 里,
    台 and others are right in both, and a line that is traditional already would lose them.
    """
    if conversion == "none":
        return MARKS.sub("", text)
    if rules:
        words = _Words(rules)
        text = _outside(text, words.replace)
    script, vocabulary = CONFIGURATIONS.get(variant, CONFIGURATIONS["zh-cn"])
    converter = _converter(vocabulary if conversion == "vocabulary" else script)
    to_traditional = script.startswith("s2")

    def by_line(part: str) -> str:
        if not _CHINESE.search(part):
            return part
        return "\n".join(
            converter.convert(line) if not to_traditional or _is_simplified(line) else line for line in part.split("\n")
        )

    return MARKS.sub("", _outside(text, by_line))


class _Words:
    """A page's rules, ready to be applied: of the forms that begin at a place the longest, as in MediaWiki's own table.

    計算機科學 goes before 計算機. Forms of more than `LONGEST_WORD` characters aren't looked for.
    """

    def __init__(self, rules: dict[str, str]):
        self.rules = {form: target for form, target in rules.items() if len(form) <= LONGEST_WORD}
        lengths: dict[str, set[int]] = {}
        for form in self.rules:
            lengths.setdefault(form[0], set()).add(len(form))
        self.lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self.first = re.compile(f"[{''.join(map(re.escape, self.lengths))}]") if lengths else None

    def replace(self, text: str) -> str:
        """The text with each form as the variant has it, between `KEEP` and `END`."""
        out: list[str] = []
        done = place = 0
        while self.first and (match := self.first.search(text, place)):
            start = match.start()
            forms = (text[start : start + length] for length in self.lengths[match[0]])
            if form := next((form for form in forms if form in self.rules), ""):
                out += [text[done:start], f"{KEEP}{self.rules[form]}{END}"]
                done = place = start + len(form)
            else:
                place = start + 1
        return "".join((*out, text[done:]))


def _outside(text: str, change: Any) -> str:
    """The text with what isn't kept changed."""
    out: list[str] = []
    place = 0
    for match in _KEPT.finditer(text):
        out += [change(text[place : match.start()]), match[0]]
        place = match.end()
    out.append(change(text[place:]))
    return "".join(out)


@functools.lru_cache(maxsize=20_000)
def _only_simplified(character: str) -> bool:
    """In GB 2312 (simplified), not in Big5 (traditional), and written otherwise there: 发, 软, 国; not 后, 里, 台."""
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    try:
        character.encode("big5")
    except UnicodeEncodeError:
        return bool(_converter("s2t").convert(character) != character)
    return False


def _is_simplified(line: str) -> bool:
    return any(_only_simplified(character) for character in line if "\u3400" <= character <= "\u9fff")
