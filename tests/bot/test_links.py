"""``bot.links``: the finders of links and handles, and where a space breaks a domain."""

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bot.links import Span, covered_by, domains, dots, handles, links, plain_handle


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see example.com.", ["example.com"]),
        ("http://a.b/c?d=e#f, ok", ["http://a.b/c?d=e#f"]),
        ("HTTPS://EXAMPLE.COM", ["HTTPS://EXAMPLE.COM"]),
        ("gopher://x and hxxp://y", ["gopher://x", "hxxp://y"]),
        ("at://did:plc:abc/app", ["at://did:plc:abc/app"]),
        ("mailto:a@b and tel:+123", ["mailto:a@b", "tel:+123"]),
        ("javascript:alert(1)", ["javascript:alert(1"]),
        ("joe@example.com!", ["joe@example.com"]),
        ("joe@localhost", ["joe@localhost"]),
        ("münchen.de und мир.рф", ["münchen.de", "мир.рф"]),
        ("例え.みんな", ["例え.みんな"]),
        ("これはexample.comです", ["これはexample.comです"]),
        ("example。com and example．com", ["example。com", "example．com"]),
        ("exam\u00adple.com b.\u200bcom", ["exam\u00adple.com", "b.\u200bcom"]),
        ("xn--e1afmkfd.xn--p1ai", ["xn--e1afmkfd.xn--p1ai"]),
        ("127.0.0.1 and 8.8.8.8:53/x", ["127.0.0.1", "8.8.8.8:53/x"]),
        ("//example.org/x", ["example.org/x"]),
        ("www.nonsense-tld.zzzz", ["www.nonsense-tld.zzzz"]),
        ("http://[2001:db8::1]/", ["http://[2001:db8::1]/"]),
        ("main.py is", ["main.py"]),
        ("(example.com)", ["example.com"]),
        ("//localhost/x", ["//localhost/x"]),
        ("💩.la and x♥y.com", ["💩.la", "x♥y.com"]),
        ("evil.com/a.com/b.com, a.org", ["evil.com/a.com/b.com", "a.org"]),
        ("です。example.comです", ["example.comです"]),
        ("foo.com-bar and foo.com_x", ["foo.com-bar", "foo.com_x"]),
    ],
)
def test_links_are_found(text: str, found: list[str]) -> None:
    assert [span.text for span in links(text)] == found
    assert all(text[span.start : span.end] == span.text for span in links(text))


@pytest.mark.parametrize(
    "text",
    [
        "e.g. this, i.e. that. U.S. is 3.14 at 12:30, v1.2.3. U.S.-based, Ph.D., J.R.R. T.",
        "10.30am, 1.5kg, $1.50, 5.–7. Mai, a.k.a. .NET",
        'Wait...so what? Well…then. (So.) "So." Great.😀😀',
        "ありがとう。みんな元気。",
        "a @ b # c",
        "[link] and [link].",
        "",
    ],
)
def test_plain_words_are_no_links(text: str) -> None:
    assert links(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hi @bob.", ["@bob"]),
        ("＠bob ﹫bob @@bob", ["＠bob", "﹫bob", "@@bob"]),
        ("@a@b.example, @name.bsky.social.", ["@a@b.example", "@name.bsky.social"]),
        ("@Ünal @\u200bx", ["@Ünal"]),
        ("@\u200dx @_y", ["@\u200dx", "@_y"]),
        ("a @ b, @ c, 100 @", []),
    ],
)
def test_handles_are_found(text: str, found: list[str]) -> None:
    if "\u200b" in text:  # a zero width space is a format character too
        found = [*found, "@\u200bx"]
    assert [span.text for span in handles(text)] == found


def test_a_plain_handle_is_neither_handle_nor_link() -> None:
    for handle in ("@bob", "@a@b.example", "@name.bsky.social", "＠x.com", "@alice.then"):
        plain = plain_handle(handle)
        assert plain
        assert not handles(plain)
        assert not links(plain)


@pytest.mark.parametrize(
    "text",
    [
        "see evil.中国吧", "访问evil.中国的网站", "evil.онлайн网", "evil.рф_", "evil.kids",
        "evil.onion", "evil.merck", "a.ישראל", "a.澳门", "a.臺灣", "a.السعودیة", "a.ايران",
        "evil．com", "evil﹒com", "evil․com", "evil⒈com", "evil.℡", "evil.ⓒⓞⓜ", "evil.\u200dcom",
        "evil.c\u0301om", "evil。com", "例え。みんな", "例え。kids", "evil。中国吧", "www.1",
        "1.2.3.4", "１.２.３.４", "x.xn--p1ai", "evil.new-tld-of-2031", "[link].com", "*evil*.com",
    ],
)  # fmt: skip
def test_a_space_behind_its_dots_makes_plain_words_of_a_domain(text: str) -> None:
    places = dots(text)
    assert len(places) == 1
    plain = text[: places[0]] + " " + text[places[0] :]
    assert dots(plain) == []
    assert links(plain) == []


@given(st.text(max_size=60) | st.text("ab1.。⒈@/:\u200d中рф ", max_size=30))
def test_no_domain_is_left_where_every_dot_has_its_space(text: str) -> None:
    for place in reversed(dots(text)):
        text = f"{text[:place]} {text[place:]}"
    assert dots(text) == []
    assert domains(text) == []


def test_every_character_that_normalises_to_a_full_stop_is_one() -> None:
    composed = [c for c in map(chr, range(0x110000)) if unicodedata.decomposition(c)]
    for char in [".", "。", *composed]:
        form = unicodedata.normalize("NFKC", char)
        if regex.search(r"(?<!\.)[.。](?!\.)", form):  # two dots together are in no domain
            assert dots(f"evil{char}com") == [5], hex(ord(char))


LONG = 40_000
UNITS = [
    "a.", "a", "@", "a@", "@a", "http:", "http://", "1.", "1.1.1.1.", "あ.", "\u200b", "a-", "([",
    "(", "a.com/", "a.com ", "@alice ", "a@b.com ", "www.", "//", "//a.", "//localhost", "mailto:",
    "web+a", "a:", "。", "a。", "一。中国", "⒈", "⒈.", "//⒈", "@.", "@-", "@\u0301", "💩", "💩.",
    "!", "a!", "'a", "&", "xn--",
]  # fmt: skip


@pytest.mark.timeout(10)  # quadratic finders need far longer here
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("before", "after"), [("", "("), ("一", "é.com")])
def test_finders_end_on_long_nonsense(unit: str, before: str, after: str) -> None:
    text = before + unit * (LONG // len(unit)) + after
    linked = links(text)
    assert all(text[span.start : span.end] == span.text for span in [*linked, *handles(text)])
    assert sum(span.end - span.start for span in linked) <= len(text)


def test_what_covers_what() -> None:
    spans = [Span(5, 9, "abcd"), Span(0, 3, "abc"), Span(6, 7, "x")]
    holds = covered_by(spans)
    assert holds(0, 3)
    assert holds(5, 9)
    assert holds(7, 8)
    assert not holds(2, 4)
    assert not holds(8, 10)
    assert not holds(3, 5)
    assert not covered_by([])(0, 1)
