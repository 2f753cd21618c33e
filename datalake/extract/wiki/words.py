"""What a template says that no table knows: the readable arguments of one in the middle of a sentence.

A wiki has hundreds of thousands of templates, and a hole where one stood takes the sense of its sentence. So a template
in running text leaves those of its arguments that are words or numbers; one that stands by itself (a box, a bar of
links, a notice) leaves nothing, and so does one whose name says that it marks a reference, a doubt of editors, a sound
or a picture. Which is which follows from where a template stands (`Place`), since a dump doesn't say.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Codes of Wikipedias: what a link between languages begins with.
LANGUAGES = frozenset(
    """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
    bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb
    ch cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es et eu ext
    fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv
    ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa
    kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij
    lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl
    my myv mzn na nah nan nap nds nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nup nv ny oc olo om or os pa pag pam
    pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa sah sat sc
    scn sco sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw szl szy ta tay
    tcy tdd te tet tg th ti tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa
    war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-cn zh-hans zh-hant zh-min-nan zh-tw zh-yue zu
    """.split()  # noqa: SIM905 - as many literals read worse
)

# Names of templates that say nothing of the sentence, whatever their arguments, by what they are for.
_WITHOUT_WORDS = re.compile(
    r"(?!.*(?: span|範囲)$)(?:"
    # notes and references
    r"(?:sfn|sfnp|sfnm|harv|ref|refn|efn|rp|cite|citation|note|fnote|footnote|notetag|odn|snf)(?![^\W\d_])"
    r"|[rf]\b(?!\.)|harv\w*|ref[ +-].*|ref(?!nec|\w*txt)\w{1,6}|efn-.*|note[ -].*|notelist.*|citar?[ _].*|"
    r"cite[_-].*|lire en ligne|"
    r"einzelnachweis.*|fußnote|fn\w{0,4}|internetquelle|literatur|note de bas de page|note en bas|nota(?: de rodapé)?|"
    r"nota al pie|uwaga|ref-\w+|anmerkung|сноска\w*|примечание|примеч\w*|"
    r"книга|статья|cite|публикация|"
    r"脚注|脚註|註|注釈|核实来源|refnest|nnbsp|הערה|הערת שוליים|پانویس|یاد\w*|پک|مرجع|ملاحظة|"
    r"각주|주석|chú thích.*|หมายเหตุ|टिप्पणी|"
    # doubts of editors and the months in which they had them
    r"fact|cn|cnf?|cbignore|.*\bneeded|.*[ -]inline|dubious.*|clarify.*|clarification.*|vague|when|who|whom|by whom|"
    r"which|where|why|how|what|according to whom|says who|peacock.*|weasel.*|or|original research.*|pov.*|undue.*|"
    r"disputed.*|discuss|contradict.*|failed.verification|verify.*|unreliable.*|self-published.*|primary.*|"
    r"(?:dead|broken) link|lien (?:brisé|mort)|update after|update|needs update|importance.*|relevance.*|example|"
    r"full|page|request quotation|nonspecific|qualify evidence|better source|specify|elucidate|attribution.*|"
    r"references?|belege.*|wer|wann|wo|welche|quelle|actualizar|sin referencias|"
    r"нет аи|аи|источник\??|уточнить|кто|кто\?|когда|когда\?|где|где\?|какой.*|чей|проверить.*|значимость|факт|"
    r"неоднозначно|недоступная ссылка|прояснить|хто|коли|де|який|джерело|"
    r"要出典|要出典-?本?|出典の明記|要検証.*|誰|誰\d|いつ|いつ\d|どこ|どれ|なぜ|要説明|独自研究.*|疑問点.*|要ページ番号|"
    r"来源请求|來源請求|谁|誰|何时|何時|何地|哪里|查证请求|查證請求|需要解释|原創研究.*|页码请求|頁碼請求|者|fact1|"
    r"출처|누구|언제|어디|깨진 링크|"
    r"بحاجة لمصدر|مصدر|متى|من|أين|تحقق|مدرک|نیازمند منبع|کی|چه کسی|دررو|"
    r"דרוש מקור|מקור|הבהרה|מי|מתי|"
    r"cần dẫn nguồn|cần nguồn|ai nói|khi nào|thiếu nguồn|"
    r"ต้องการอ้างอิง|ใคร|เมื่อไร|उद्धरण आवश्यक|कब|किसने|"
    r"kaynak belirt|kim|"
    # sounds that are heard
    r".*audio.*|listen.*|sound.*|音声.*|소리.*|صدا|صوت.*|اودیو.*|אודיו.*|слух.*|аудио.*|аудіо.*|escuchar|msapi|เสียง.*|"
    # pictures, flags without their country's name, icons, colours, space
    r"flag ?icon.*|.*flagicon.*|bandeir\w*|bandera\w*|bandiera|прапор\w*|флаг|флагик\w*|flagga|flaggbild|vlag|flaga|"
    r"flagge?\d*icon|پرچمک.*|רמז דגל|דגל|דגל\w*|ธง\w*|국기그림|flagdeco|cờ\w*|флагче|flagpaís|náhled|"
    r"drapeau|drapeau-\w+|"
    r"css image crop|image|imagem?|imagen|bild\w*|icon|icona|ícono|símbolo|rws|anchor.*|ancre|ancora|якорь|anker|"
    r"âncora|"
    r"ancla|clear.*|nowrap (?:begin|end)|wrap|-|col-?\w*|.* (?:top|bottom|begin|end|start|footer|header)|"
    r"size|font|spaces?|padlock.*|pp-.*|main ?icon|"
    # what stands for the whole page or its parts, wherever someone has put it
    r"short ?description|use [a-z]+ (?:dates|english|spelling)|engvar.*|defaultsort.*|displaytitle.*|italic ?title|"
    r"authority control|coord|coords?\b.*|infobox.*|taxobox.*|navbox.*|.*[ -]stub|stub.*|portal.*|commons.*|"
    r"wikiquote.*|"
    r"wiktionary.*|sister.*|wikisource.*|commonscat.*|см\.? также|основная статья|main|see ?also|further|about|for|"
    r"other ?uses.*|redirect.*|distinguish|hatnote|dablink|not to be confused.*|good article|featured article|"
    r"hauptartikel|begriffsklärungshinweis|dieser artikel|voir (?:aussi|homonymes?)|article (?:principal|détaillé|de "
    r"qualité|connexe)|à ne pas confondre.*|homon\w*|véase.*|otros usos|artículo .*|ap|principal|artigo principal|"
    r"ver desambig.*|vt|vedi anche|torna a|nota disambigua.*|otheruses.*|main2|主|主条目|主條目|另见|另見|参见|參見|"
    r"about|redirecthere|本條目|混淆|distinguish2|詳細.*|see|"
    r"другие значения|о|не путать.*|значения|основная|"
    # computed by the wiki from its own data
    r"inflation.*|infl|wikidata.*|property.*|population.*|metadaten .*|données/.*|updat(?:ed|ing).*|date range.*|"
    r"official\b.*|imdb.*|url2?|isbnt?|oclc|bnf|sudoc|lccn|viaf|gnd|dnb|issnt?|doi|issn|asin|bibcode|pmid|arxiv|"
    r"jstor|allmusic.*|find a grave.*"
    r")"
)
# Elsewhere editors put the words that they doubt into the template, and a month behind them or alone.
_MONTH = re.compile(r"[^\W\d]+(?: de)? (?:19|20)\d\d")
_DOUBT = re.compile(
    r"r[eé]f(?:nec|[eé]rence.*|sou| .*)|citation (?:nécessaire|requise)|cita requerida|citazione necessaria|"
    r"carece de fontes.*|"
    r"senza fonte|fakt|bron\?|källa behövs|quand|qui|quando|cuándo|quién|aclarar|chiarire|préciser.*|pas clair|"
    r"passage .*"
)
# Transcriptions: in parentheses they are those of the title, elsewhere a part of the sentence.
_SOUND = re.compile(
    r"ipa.*|.*[ -]ipa|мфа.*|afi.*|api.*|respell|pron|pron-.*|.*pronunciation.*|lautschrift|"
    r"prononciation.*|発音.*|발음.*|"
    r"آوا.*|היגוי.*|pronunc\w*|phát âm.*|国际音标|國際音標"
)
_FILE = re.compile(r"\.(?:jpe?g|png|gif|svg|tiff?|webp|xcf|webm|og[agv]|opus|mp[34]|wav|flac|midi?|pdf|djvu?)$", re.I)
_ADDRESS = re.compile(r"(?:[a-z]+:)?//|www\.|mailto:|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|info|html?)\b", re.I)
_SETTING = re.compile(
    r"#[0-9a-f]{3,8}|\d+(?:\.\d+)?(?:px|em|rem|pt|ex)|(?:\d+x)\d+px|[a-z-]+\s*:\s*[^\s;]+\s*;.*|"
    r"y|n|yes|no|on|off|true|false|left|right|cent(?:er|re)|top|bottom|middle|thumb|none|inline|nocat|nolink|noerror|"
    r"ja|nein|oui|non|sí|si|sim|não|да|нет|x|nl|[a-z]+[ _]?color|",
    re.I,
)
_KEY = re.compile(
    r"[A-Za-z]+[_:]\S+|[^\W\d_]+(?:19|20)\d\d[a-z]?|[QP]\d{2,9}|20\d\d-\d\d(?:-\d\d)?|\d{8,}|[A-Z]{2}-[A-Z0-9]{2,4}|"
)
_CODE = re.compile(r"[a-z]{2}|grc|ang|sco|nds|yue|arz|lzh|simple")
_UPPER_CODE = re.compile(r"(?![IVXLC]+$)[A-Z]{2,3}")
_TEXTS = ("1", "text", "texte", "texto", "testo", "текст", "tekst", "metin", "content", "contenu", "contenido",
          "conteúdo", "contenuto", "quote", "zitat", "cita", "citation", "цитата", "文", "文章", "內容", "内容",
          "テキスト",
          "متن", "نص", "טקסט", "내용", "label", "texte affiché", "lt", "shown", "display")  # fmt: skip
_UNITS = frozenset(
    "km m cm mm kg ha km² km2 m² m2 m³ m3 °c км м см мм кг га км² м² м³ км2 м2 كم كغ م ק״מ".split()  # noqa: SIM905
)
_DATE = re.compile(r"(?:0?[1-9]|[12]\d|3[01]) (?:0?[1-9]|1[0-2]) \d{4}")
_ENDS = tuple(".!?…。！？؟।")
_NUMERAL = re.compile(r"(?:\d+|[IVXLC]+)(?:er|re|e|ème|è|º|ª|th|st|nd|rd)?\b.*")


class Place(NamedTuple):
    """Where a template stands: what is on its line, or in its argument, before and behind it.

    - `kind`: of the brackets around it: "" for none, `{{`, `[[`, `{|`
    - `words`: whether a word stands before it; `before`: up to three characters that do, rendered
    - `behind`: some characters of the source
    - `block`: whether it is written over several lines
    - `aside`: whether a parenthesis is open
    """

    kind: str
    words: bool
    before: str
    behind: str
    block: bool
    aside: bool = False


_CLOSED = re.compile(r"\{\{[^{}]*\}\}|<[^<>]*>|[\ue000-\ue00f]")
# What a sentence goes on with behind its first word: punctuation, and particles of Korean, Japanese and Chinese.
_GOES_ON = frozenset(",;:)’'–—-，、；은는이가을를의에와과로도はがをのにでともへ的是在和与與为為於于")
_LINE_END = re.compile(r"\n|\{\{")
_ARGUMENT_END = re.compile(r"\n|\{\{|\||\}\}|\]\]|!!")
_WORD = re.compile(r"\w")


def in_sentence(place: Place, whole: bool) -> bool:
    """Whether a template is part of a sentence. `whole`: whether what it says is one itself."""
    before = place.before[-1:]
    if _attached(place.before):
        return False
    if place.kind == "{{":
        return True
    behind = _CLOSED.sub("", place.behind)
    behind = (_LINE_END if not place.kind else _ARGUMENT_END).split(behind, maxsplit=1)[0].lstrip()
    followed = _WORD.search(behind) is not None
    if place.words:
        ended = place.before.rstrip().endswith((*_ENDS, ":", "：", ")", "»", '"', "”", "」"))
        return followed or whole or bool(behind) or not ended or before in "(（"
    if place.block or not followed or place.kind == "[[":
        return followed and place.kind == "[["
    return whole or behind[0].islower() or behind[0] in _GOES_ON


def _attached(before: str) -> bool:
    """Whether what follows hangs on a word or a stop, as the mark of a note does.

    A script without spaces can't tell, nor can a single letter, which is an article or a preposition (`l'`, `ב`, `و`).
    """
    last = before[-1:]
    if not last or last.isspace() or _spaceless(last):
        return False
    if last.isalnum():
        return len(before) > 1 and before[-2].isalnum()
    return last in '.,;:!?)]}»”"…،؛؟।%°' and not (last == '"' and before[-2:-1].isspace())


def _spaceless(character: str) -> bool:
    code = ord(character)
    return (
        0x3000 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xFF00 <= code <= 0xFFEF or 0x20000 <= code <= 0x3FFFF
        or 0x0E00 <= code <= 0x0EFF or 0x1000 <= code <= 0x109F or 0x1780 <= code <= 0x17FF
    )  # fmt: skip


def words_of(name: str, positional: list[str], named: dict[str, str], place: Place) -> str:
    """What a template that no table knows leaves where it stands; nothing where it is no part of a sentence."""
    if ":" in name or name.startswith("#") or _WITHOUT_WORDS.fullmatch(name.casefold()):
        return ""
    if _SOUND.fullmatch(name.casefold()):
        heard = "" if place.aside or not place.words else _heard(positional)
        return heard if heard and in_sentence(place, False) else ""
    if not positional and not named and not any(character.isalnum() for character in name):
        return name.replace(" ", "").strip("-")  # `{{' "}}`, `{{-"}}`
    if _DOUBT.fullmatch(name.casefold()):
        positional = [item for item in positional if not _MONTH.fullmatch(item)]
    said = _said(name, positional, named)
    return said if said and in_sentence(place, _is_sentence(said)) else ""


def _heard(positional: list[str]) -> str:
    """`{{IPAc-en|m|ɪ|l}}`: /mɪl/, of a transcription that stands outside of parentheses."""
    sound = "".join(
        item.replace("_", " ")
        for item in positional
        if item not in ("lang", "pron", "all", "local", "small", "icon", "-") and not _FILE.search(item[-6:])
    )
    return f"/{sound}/" if sound and sound[0] not in "/[" and len(sound) < 60 else sound[:60]


def _is_sentence(text: str) -> bool:
    """Whether a text is long for a name: a sentence, or most of one."""
    if len(text) > 12 and text.rstrip("”»\"'").endswith(_ENDS):
        return True
    return text.count(" ") >= 4 or (len(text) >= 9 and _spaceless(text[0]) and _spaceless(text[-1]))


def _said(name: str, positional: list[str], named: dict[str, str]) -> str:
    items = [" ".join(item.split()) for item in positional[:12]]
    if not any(items):
        items = [" ".join(named[key].split()) for key in _TEXTS if named.get(key)][:1]
        if not items and not named and (_NUMERAL.fullmatch(name) or (name.rstrip().endswith(".") and len(name) > 2)):
            return name  # `{{XIXe siècle}}`, `{{до н. э.}}`
    codes = [
        index
        for index, item in enumerate(items)
        if _CODE.fullmatch(item)
        and (len(item) > 2 or item in LANGUAGES)
        and not (index and items[index - 1][:1].isdecimal())  # `12|km` is no Khmer
    ]
    if codes and len([item for item in items if item]) > 1:
        # the language comes before its words, or after those of this wiki and before the other's
        items = items[codes[0] + 1 :] if not any(items[: codes[0]]) else items[: codes[0]]
    items = [item for item in items if _is_readable(item)]
    if not items:
        return ""
    if len(items) == 1 and name in _UNITS and items[0][0].isdecimal():
        return f"{items[0]} {name}"
    if _DATE.fullmatch(" ".join(items[:3])):
        return ".".join(items[:3])
    longest = max(items[:3], key=len)
    if _is_sentence(longest):
        return longest
    if len(items) > 1 and _same_word(items[0], items[1]):  # a link and its label
        return items[1]
    if len(items) > 1 and _UPPER_CODE.fullmatch(items[0]):
        items = [item for item in items if not _UPPER_CODE.fullmatch(item)] or items[:1]
    return " ".join(dict.fromkeys(items[:4]))


def _is_readable(text: str) -> bool:
    """Whether a text is words or a number, not a setting: a file's name, an address, a colour, the key of a note."""
    if not any(character.isalnum() for character in text) or _SETTING.fullmatch(text) or _KEY.fullmatch(text):
        return False
    return not (_FILE.search(text[-6:]) or _ADDRESS.match(text)) and "=" not in text[:20]


def _same_word(title: str, label: str) -> bool:
    """Whether a label is its title in another form: `nuclear weapon`, `nuclear weapons`."""
    first, second = (unicodedata.normalize("NFKD", word[:40].partition(" (")[0]).casefold() for word in (title, label))
    if len(first) > 2 and (first in second or (second in first and len(second) > 2)):
        return True
    common = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    return common >= 3 and common * 2 >= min(len(first), len(second))


__all__ = ["LANGUAGES", "Place", "in_sentence", "words_of"]
