"""Comments of code are told from strings."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.curate.metrics.families.code import comment_characters


@pytest.mark.parametrize(
    ("text", "language", "comments"),
    [
        ("x = 1  # one\n", "Python", "# one"),
        ("s = '# no' + \"# no\"\n", "Python", ""),
        ('"""Doc."""\nx = """no"""\n', "Python", '"""Doc."""'),
        ("def f():\n    r = 1\n    '''Doc \\''' on.'''\n", "Python", "'''Doc \\''' on.'''"),
        ("s = 'open # no\n# yes\n", "Python", "# yes"),
        ("int a; // b\n/* c\n*/ d();", "Java", "// b/* c\n*/"),
        ('String s = "// no"; char c = \'"\'; // y', "Java", "// y"),
        ("let s = `a\n// no`; /* open", "JavaScript", "/* open"),
        ("/*/ x */ y", "JavaScript", "/*/ x */"),
        ("# x", "Ruby", ""),
        ("'''open", "Python", "'''open"),
        ("s = 'a\\", "Python", ""),
    ],
)
def test_comments_are_counted_by_hand(text: str, language: str, comments: str) -> None:
    assert comment_characters(text, language) == len(comments)


def test_pythons_own_tokenizer_counts_the_same() -> None:
    for path in sorted(Path(io.__file__).parent.glob("*.py"))[:60]:
        text = path.read_text(encoding="utf-8")
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        count = sum(len(one.string) for one in tokens if one.type == tokenize.COMMENT)
        for one in tokens:
            begins = one.line[: one.start[1]].strip() == ""
            if one.type == tokenize.STRING and one.string.startswith(('"""', "'''")) and begins:
                count += len(one.string)
        assert comment_characters(text, "Python") == count, path


@settings(max_examples=100)
@given(st.text(st.sampled_from("#/*'\"`\\ \nax"), max_size=60), st.sampled_from(("Python", "Java", "JavaScript")))
def test_no_text_raises_and_no_more_than_all_is_comment(text: str, language: str) -> None:
    assert 0 <= comment_characters(text, language) <= len(text)
