"""What markup means stays in the text: scripts, formulas, hidden text, ruby, tables, code; after public reports."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.edits import code_lines, keep_prose_lines, lines_of, prose_of
from datalake.curate.rules_file import choose, rule_sets
from datalake.document import RAW
from datalake.extract.html.formulas import latex_of, with_formulas
from datalake.extract.html.page import extract

BEFORE = """<p>The river that runs past the old mill was straightened in the last century, and since then the meadows
beside it have dried out more every summer than anyone expected.</p>
<p>Residents who remember the floods of their childhood say
that the water stood for weeks between the trees, and that herons came down to the gardens in the early morning.</p>"""
AFTER = """<p>A group of engineers now proposes to give the river back two of its bends, which would slow the current
and raise the groundwater by roughly half a metre within ten years.</p>
<p>The council will decide in autumn; until then the
plans can be seen in the town hall, where a model shows how the valley may look once the work is finished.</p>"""


def page(inside: str) -> str:
    return f"""<!DOCTYPE html><html lang="en"><head><title>The river and its meadows - Valley News</title></head>
<body><header><nav><ul><li><a href="/">Home</a></li><li><a href="/a">News</a></li></ul></nav></header><main><article>
<h1>The river and its meadows</h1>{BEFORE}{inside}{AFTER}</article></main><footer><p>Copyright Valley News</p></footer>
</body></html>"""


def middle(inside: str) -> str:
    """What an article says between its own paragraphs."""
    text = extract(page(inside)).text
    assert "Copyright" not in text
    return text.partition("early morning.\n\n")[2].partition("\n\nA group of engineers")[0]


def whole(html: str) -> str:
    return extract(html, main_content=False).text


PYTHON = '''def level(readings):
    """The mean of the readings."""
    total = 0
    for value in readings:
        if value is None:
            continue
        total += value
    return total / len(readings)'''


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("10<sup>6</sup> m<sup>3</sup>", "10^6 m^3"),
        ("stops at 2<sup>32</sup>-1 pulses", "stops at 2^32-1 pulses"),
        ("3&times;10<sup>-2</sup> or 10<sup>&minus;2</sup>", "3×10^-2 or 10^−2"),
        ("2<sup>n-1</sup>, x<sup>n</sup>, e<sup>2x</sup>, A<sup>T</sup>", "2^(n-1), x^n, e^(2x), A^T"),
        ("(x+1)<sup>2</sup> and sin<sup>2</sup>x", "(x+1)^2 and sin^2x"),
        ("H<sub>2</sub>O, CO<sub>2</sub>, (OH)<sub>2</sub>", "H2O, CO2, (OH)2"),
        ("x<sub>i</sub>, x<sub>i+1</sub>, V<sub>max</sub>, 101<sub>2</sub>", "x_i, x_(i+1), V_max, 101_2"),
        ("Ca<sup>2+</sup>, Na<sup>+</sup>, <sup>14</sup>C", "Ca^2+, Na+, ^14C"),
        ("the 1<sup>st</sup>, M<sup>lle</sup>, n<sup>o</sup>, le 2<sup>e</sup>", "the 1st, Mlle, no, le 2e"),
        ("την 1<sup>η</sup>", "την 1η"),
        ("Brand<sup>TM</sup>, Mark<sup>&reg;</sup>, star<sup>*</sup>", "BrandTM, Mark®, star*"),
        ("a fact<sup>[1]</sup>", "a fact[1]"),
        ('a fact<sup><a href="#fn1">1</a></sup>, one<a href="#fn2"><sup>2</sup></a>', "a fact[1], one[2]"),
        ("as Smith<sup>1</sup> says.<sup>3</sup> 中文<sup>4</sup>", "as Smith[1] says.[3] 中文[4]"),
        ("3<sup>1</sup>/<sub>2</sub> and <sup>1</sup>&frasl;<sub>2</sub>", "3 1/2 and 1⁄2"),
        ("2<sup>5", "25"),  # never closed: as the page has it
    ],
)
def test_scripts_that_carry_meaning(html: str, text: str) -> None:
    assert whole(f"<p>{html}</p>") == text


def test_a_sentence_keeps_its_exponents() -> None:
    assert middle(
        "<p>In a wet year the river carries 10<sup>6</sup> m<sup>3</sup> of water through the valley.</p>"
    ) == ("In a wet year the river carries 10^6 m^3 of water through the valley.")


KATEX = (
    '<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c'
    '</mi><mn>2</mn></msup></mrow><annotation encoding="application/x-tex">E = mc^2</annotation></semantics></math>'
    '</span><span class="katex-html" aria-hidden="true"><span class="base">E<span class="mrel">=</span></span>'
    '<span class="base">mc<span>2</span></span></span></span>'
)
WIKIPEDIA = (
    '<span class="mwe-math-element"><span class="mwe-math-mathml-inline mwe-math-mathml-a11y" style="display: none;">'
    '<math alttext="{\\displaystyle x^{2}}"><semantics><mi>x</mi><annotation encoding="application/x-tex">'
    '{\\displaystyle x^{2}}</annotation></semantics></math></span><img src="x.svg" aria-hidden="true" '
    'class="mwe-math-fallback-image-inline" alt="{\\displaystyle x^{2}}"></span>'
)
MATHJAX2 = (
    '<span class="MathJax_Preview">x2</span><span class="MathJax"><nobr aria-hidden="true"><span>x2</span></nobr>'
    '<span class="MJX_Assistive_MathML"><math><mi>x</mi></math></span></span><script type="math/tex">x^2</script>'
)
MATHJAX3 = (
    '<mjx-container class="MathJax" jax="CHTML"><mjx-math><mjx-mi></mjx-mi></mjx-math><mjx-assistive-mml><math>'
    "<msup><mi>x</mi><mn>2</mn></msup></math></mjx-assistive-mml></mjx-container>"
)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (KATEX, "$E = mc^2$"),
        ('<span class="katex"><span class="katex-html" aria-hidden="true">E=m</span></span>', "E=m"),
        (WIKIPEDIA, "$x^{2}$"),
        (MATHJAX2, "$x^2$"),
        (MATHJAX3, "$x^2$"),
        ('<script type="math/tex">x < y & z</script>', "$x < y & z$"),
        ('<script type="math/tex; mode=display">A = \\pi r^2</script>', "$$A = \\pi r^2$$"),
        ('<math alttext="a&lt;b" display="block"><mi>a</mi></math>', "$$a<b$$"),
        ('<img src="https://www.zhihu.com/equation?tex=x" alt="x\\ge 1" eeimg="1">', "$x\\ge 1$"),
        ('<img class="latex" alt="$y$" src="y.png">', "$y$"),
        ('<img class="photo" alt="a heron" src="h.png">', ""),
        ("<math><mi>x", "x"),  # never closed
        ('<script>var a = "<math>";</script>', ""),
    ],
)
def test_a_formula_stands_once_and_as_latex(html: str, text: str) -> None:
    assert whole(f"<p>is {html} so</p>") == " ".join(["is", *text.split(), "so"])


def test_formulas_stay_in_their_sentence() -> None:
    assert middle(f"<p>Energy and mass are tied by {KATEX}, which every pupil learns.</p>") == (
        "Energy and mass are tied by $E = mc^2$, which every pupil learns."
    )
    assert middle('<p>A circle is given by <script type="math/tex">x^2 + y^2 = r^2</script>, as they say.</p>') == (
        "A circle is given by $x^2 + y^2 = r^2$, as they say."
    )
    assert whole('<p>so</p><p><script type="math/tex; mode=display">a</script></p>') == "so\n\n$$a$$"


@pytest.mark.parametrize(
    ("mathml", "latex"),
    [
        ("<mfrac><mi>a</mi><mrow><mi>b</mi><mo>+</mo><mn>1</mn></mrow></mfrac>", "\\frac{a}{b+1}"),
        ("<msqrt><mi>x</mi></msqrt><mroot><mi>y</mi><mn>3</mn></mroot>", "\\sqrt{x}\\sqrt[3]{y}"),
        ("<msubsup><mi>x</mi><mn>1</mn><mn>10</mn></msubsup>", "x_1^{10}"),
        ("<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi>", "\\sin x"),
        ("<m:msup><m:mi>x</m:mi><m:mn>2</m:mn></m:msup>", "x^2"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr></mtable>", "\\begin{matrix}1 & 0\\end{matrix}"),
        ("</mi><mi>x<mo></mi>", "x"),  # damaged
    ],
)
def test_mathml_without_its_source_is_written_as_latex(mathml: str, latex: str) -> None:
    assert latex_of(f"<math>{mathml}</math>") == latex


def test_a_page_without_formulas_is_left_as_it_is() -> None:
    html = page("<p>text</p>")
    assert with_formulas(html) is html


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("holds <span style='display:none' class=sortkey>7004&#9824;</span>27,994 m", "holds 27,994 m"),
        ("metres<span style='color:red; display: none;'>HIDDEN <span>ERROR</span></span>, painted", "metres, painted"),
        ("a <b>name</b><span style='visibility:hidden'>name</span> b", "a name b"),
        ("a<i hidden>no</i> b<span hidden=until-found>yes</span>", "a byes"),
        ("<i class='icon' aria-hidden='true'>home</i>Home", "Home"),
        ("x<span class='sr-only'>(opens a window)</span>y", "xy"),
        ("<span style='overflow-y:hidden'>seen</span>", "seen"),
        ("<p>a <span hidden>no</p><p>yes</p>", "a\n\nyes"),
        ("<input hidden>seen <svg><desc>no</desc></svg>too", "seen too"),
        ("<div style='visibility:hidden'>no</div><div>yes</div>", "yes"),
        ("<body style='visibility:hidden'><p>yes</p>", "yes"),  # until a script shows it
    ],
)
def test_what_a_reader_never_sees_is_not_in_the_text(html: str, text: str) -> None:
    assert whole(html) == text


def test_hidden_blocks_are_left_out_unless_the_page_is_hidden() -> None:
    assert middle(f"<div style='display:none'>{BEFORE.replace('river', 'canal')}</div><p>The miller left.</p>") == (
        "The miller left."
    )
    hidden = page("").replace("<article>", "<article style='display:none'>")
    assert "herons" in extract(hidden).text


def test_ruby_is_its_base_text() -> None:
    assert (
        whole("<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>を<ruby>読<rt>よ<rb>書<rt>か</ruby>む")
        == "漢字を読書む"
    )


def test_quotations_emoji_and_shadow_trees() -> None:
    assert middle("<p>The miller said <q>the water was <q>never</q> this low</q> and left it at that.</p>") == (
        "The miller said “the water was ‘never’ this low” and left it at that."
    )
    assert whole("<q>«déjà»</q> <q>&ldquo;x&rdquo;</q>") == "«déjà» “x”"
    assert middle('<p>The herons are back <img class="emoji" alt="🦢" src="x.png">and the children love it.</p>') == (
        "The herons are back 🦢and the children love it."
    )
    assert whole("<x-a><template shadowrootmode=open><p>in</p></template></x-a><template>no</template>") == "in"


def test_permalinks_are_left_out() -> None:
    assert whole(
        '<h2>Installing<a class="headerlink" href="#install" title="Link">¶</a></h2><h3>Use <a href="/x#use">#</a></h3>'
        '<p>A note. <a href="#fnref1">&#8617;</a> In C<a href="/tag">#</a> and <a href="#top">Top</a></p>'
    ) == ("Installing\n\nUse\n\nA note. In C# and Top")


def test_list_items_have_their_numbers() -> None:
    assert whole("<ol start=3><li>Read<ul><li>the map<li>the table</ul><li>Write</ol><dl><dt>Bend<dd>A part</dl>") == (
        "3. Read\n- the map\n- the table\n4. Write\n\nBend\nA part"
    )
    assert whole("<ol><li value=7>a<li>b</ol>") == "7. a\n8. b"
    assert whole("<ol class=commentlist><li>a<li>b</ol>") == "- a\n- b"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<table><tr><th>Year<th>Level<tr><td><span style='display:none'>01</span>1950<td>3.2 m</table>",
         "Year | Level\n1950 | 3.2 m"),
        ("<table><thead><tr><th>a<br>b<th>c</thead><tbody><tr><td><p>1</p><td><div>2</div></table>", "a b | c\n1 | 2"),
        ("<table><tr><td>x<table><tr><td>1<td>2<tr><td>3<td>4</table><td>y</table>", "x\n\n1 | 2\n3 | 4\n\ny"),
        ("<table><tr><td>two<br>lines</table>", "two\nlines"),
    ],
)  # fmt: skip
def test_cells_are_parted_and_rows_are_lines(html: str, text: str) -> None:
    assert whole(html) == text


ROUGE = (
    '<div class="highlight"><code><table><tbody><tr><td class="rouge-gutter gl"><pre class="lineno">'
    f'1\n2\n3\n4\n5\n6\n7\n8\n</pre></td><td class="rouge-code"><pre>{PYTHON}\n</pre></td></tr></table></code></div>'
)
HEXO = (
    '<figure class="highlight"><table><tr><td class="gutter"><pre>'
    + "".join(f'<span class="line">{k}</span><br>' for k in range(1, 9))
    + '</pre></td><td class="code"><pre>'
    + "".join(f'<span class="line">{line}</span><br>' for line in PYTHON.split("\n"))
    + "</pre></td></tr></table></figure>"
)
PYGMENTS = (
    '<div class="highlight"><pre><span></span>'
    + "".join(f'<span class="linenos">{k}</span>{line}\n' for k, line in enumerate(PYTHON.split("\n"), 1))
    + "</pre></div>"
)
CHROMA = (
    '<div class="chroma"><table class="lntable"><tr><td class="lntd"><pre class="chroma"><code>'
    + "".join(f'<span class="lnt">{k}\n</span>' for k in range(1, 9))
    + f'</code></pre></td><td class="lntd"><pre class="chroma"><code>{PYTHON}</code></pre></td></tr></table></div>'
)
DIVS = "<pre><code>" + "".join(f"<div>{line}</div>" for line in PYTHON.split("\n")) + "</code></pre>"


@pytest.mark.parametrize("html", [f"<pre><code>{PYTHON}\n</code></pre>", ROUGE, HEXO, PYGMENTS, CHROMA, DIVS])
def test_code_keeps_its_lines_and_indentation_and_loses_their_numbers(html: str) -> None:
    assert middle(f"<p>The readings are averaged by this function:</p>{html}") == (
        f"The readings are averaged by this function:\n\n```\n{PYTHON}\n```"
    )


def test_what_is_code_and_what_is_laid_out_text() -> None:
    assert whole("<pre>int main(void)\n{\n    return 0;\n}</pre>") == "```\nint main(void)\n{\n    return 0;\n}\n```"
    assert whole("<pre>Roses are red,\n  violets are blue.</pre>") == "Roses are red,\n  violets are blue."
    assert whole('<pre class="line-numbers"><code class="language-c">x\n 1</code></pre>') == "```\nx\n 1\n```"


def curated(text: str, language: str, preset: str, source: str = "common_crawl") -> tuple[list[str], str]:
    """The rules that a text fails, and what is kept of it."""
    row: dict[str, object] = dict.fromkeys(RAW.names)
    row |= {"id": bytes(16), "text": text, "source": source, "uri": "u", "language": language, "language_score": 0.99}
    row |= {"attributes": [], "archive": "a", "offset": 0, "length": 1}
    curation, kept = curate_batch(
        pa.Table.from_pylist([row], schema=RAW), CurateConfig.model_validate({"preset": preset})
    )
    return curation["rules"].to_pylist()[0], "".join(kept["text"].to_pylist())


CODE = f"```\n{PYTHON}\nprint({{}})\n\nx = '{{'\n```"


def test_the_default_preset_keeps_code_whole_in_english() -> None:
    prose = extract(page("")).text.split("\n\n")
    text = "\n\n".join([*prose[:2], CODE, "Short line", *prose[2:], "A copy of every reading goes to the county."])
    rules, kept = curated(text, "en", "auto")
    assert not rules
    assert f"\n{CODE}\n" in kept
    assert "Short line" not in kept  # prose is edited as before
    assert "    for value" not in curated(text, "en", "fineweb")[1]  # a named preset is what its source is


def test_the_default_preset_judges_prose_apart_from_its_code_in_any_language() -> None:
    rng = Random(1)
    words = [chr(rng.randrange(0x4E00, 0x8000)) for _ in range(900)]
    parts = ["".join(words[9 * k :][:9]) + "的在是和"[k % 4] for k in range(100)]
    prose = "\n".join("".join(parts[10 * k :][:10]) + "。" for k in range(10))
    code = "```\n" + "\n".join(f"    value_{k} = read({k})" for k in range(90)) + "\n```"
    assert curated(prose, "zh", "auto") == ([], prose)
    assert curated(f"{prose}\n\n{code}", "zh", "auto") == ([], f"{prose}\n\n{code}")
    assert curated(f"{prose}\n\n{code}", "zh", "fineweb2")[0]


def test_blocks_of_code_in_a_text() -> None:
    text = "a\n```python\nx\n\n  y\n```\nb\n```\nnever closed"
    assert code_lines(text) == [False, True, True, True, True, True, False, False, False]
    assert prose_of(text) == "a\nb\n```\nnever closed"
    assert prose_of("```\nx\n```") == ""
    assert keep_prose_lines("a\n```\n x\n```\nb [1]", [False, True], "fineweb") == "```\n x\n```\nb"
    assert keep_prose_lines("a\n```\n x\n```", [False], "fineweb") == ""
    assert len(lines_of(prose_of(text))) == 4
    assert choose(rule_sets("auto"), "common_crawl", "en").code_apart
    assert not choose(rule_sets("auto"), "code", "en").code_apart
