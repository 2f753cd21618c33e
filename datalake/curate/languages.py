"""What curation knows of languages: which are Chinese, which no segmenter here cuts, and their stop words."""

from __future__ import annotations

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
