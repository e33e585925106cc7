"""``bot.markdown``: marks go, words and what only looks like a mark stay."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.markdown import without_markdown
from bot.reply import Allowed, check
from bot.values import Limits
from model.engine import Generation
from tests.examples import examples


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("It **is**, *is*, ***is*** and ~~was~~.", "It is, is, is and was."),
        ("It is _slanted_, __not a name__.", "It is slanted, not a name."),
        ("**one\ntwo** three", "one\ntwo three"),
        ("Run `make test` or ``a`b``.", "Run make test or a`b."),
        ("# Title\n\nWords", "Title\n\nWords"),
        ("### A *fine* one ###", "A fine one"),
        ("See [the page](https://a.org/x_y_z).", "See the page (https://a.org/x_y_z)."),
        ("[https://a.org](https://a.org) [a.org](https://a.org)", "https://a.org a.org"),
        ("[a **b**](<https://a.org> 'title')", "a b (https://a.org)"),
        ("![a cat](https://a.org/cat.png) ![](b.png)", "a cat b.png"),
        ("So:\n\n```python\ndef f(*args):\n    return __x__\n```\nDone.",
         "So:\n\ndef f(*args):\n    return __x__\nDone."),
        ("~~~\n# no title\n~~~", "# no title"),
        ("```\nnever closed *x*", "never closed *x*"),
        ("- **One**: first\n- two\n  - `three`", "- One: first\n- two\n  - three"),
        ("1. *One*\n2. two", "1. One\n2. two"),
        ("* star\n* **list**", "* star\n* list"),
        ("> **quoted**\n> words\n\n> ```\n> code\n> ```", "> quoted\n> words\n\n> code"),
        ("> - *a*\n>   b", "> - a\n>   b"),
        (r"2 \* 3 and \[x\]", "2 * 3 and [x]"),
        ("你好**世界**吗 и **мир**", "你好世界吗 и мир"),
        ("**evil**.com", "evil.com"),
    ],
)  # fmt: skip
def test_marks_go_and_words_stay(text: str, plain: str) -> None:
    assert without_markdown(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "5*3*2 = 30 and 2 * 3 * 4 and 2**3**2",
        "snake_case_name and __init__ and _private",
        "#tag and C# and #1, a * alone, _ alone, ** and __",
        "¯\\_(ツ)_/¯ and C:\\_temp",
        "a 4* hotel, f(*args, **kwargs)",
        "[1] [link] [x] (y) ] [",
        "a < b > c & d &amp; <b>html</b> <https://a.org>",
        "Title\n---\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "- one\n- two\n\n1) three\n    four",
        "[a]: https://a.org\n[a]",
        "> said\nand so on",
        "#",
        "~tilde~ and ~5",
        "it's 5' 3\" `and so on",
    ],
)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert without_markdown(text) == text


WORDS = [
    "word", "two", "5", "*", "_", "#", "#tag", "snake_case", "5*3", "a_b_c", "🎉", "мир", "世界",
    ",", ".", "!", "(x)", "-", "+", ">", "1.", "#1", "C#", "@bob", "~", "&", "\n", "\n\n",
]  # fmt: skip
HASHES = ("#", "-", "+", "*", ">", "1.")


@examples(300)
@given(st.lists(st.sampled_from(WORDS), max_size=40))
@example(["a_b_c", "_", "5*3", "*"])
def test_prose_is_unchanged(words: list[str]) -> None:
    lines = " ".join(words).split("\n")
    text = "\n".join(line for line in lines if not line.strip().startswith(HASHES))
    assert without_markdown(text) == text


@examples(300)
@given(st.text(alphabet="ab 1*_`#[]()~!\\>-\n", max_size=80) | st.text(max_size=80))
@example("*\r0")
def test_any_text_comes_through_without_new_characters(text: str) -> None:
    plain = without_markdown(text)
    assert set(plain) <= set(text) | set(" ()\n")
    kept = [char for char in text if char.isalnum()]
    assert (
        [char for char in plain if char.isalnum()] == kept
        or "](" in text
        or "```" in text
        or "~~~" in text
    )


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit", ["[", "![", "*a ", "a*b*", "*_", "[a](", "> ", "***a** ", "`` ", "- "]
)
def test_nonsense_ends(unit: str) -> None:
    text = unit * (3600 // len(unit))
    assert set(without_markdown(text)) <= set(text) | set(" ()")


def test_a_reply_has_no_markdown_where_the_platform_has_none() -> None:
    said = Generation("**Yes**, see [this](https://evil.com) and **good**.com", (), (), "stop")
    nobody = Allowed({}, {})
    plain = check(said, nobody, Limits(), "en")
    assert plain.text == "Yes, see this ([link]) and good. com"
    assert ("markdown", "changed") in [(v.name, v.verdict) for v in plain.verdicts]
    shown = check(said, nobody, Limits(markdown=True), "en")
    assert shown.text == "**Yes**, see [this] ([link]) and **good**. com"
