"""``bot.reply``: what may be said, where, and to whom it may link.

The finders here are those of platforms (linkify-it, and the patterns that Mastodon, Bluesky
and Twitter publish for their own), not those of the project.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from linkify_it import LinkifyIt
from linkify_it.tlds import TLDS
from markdown_it import MarkdownIt

import bot.reply
from bot.context import ContextPost, spend
from bot.reply import (
    MAX_FACETS,
    MAX_HANDLE,
    MAX_LINKS,
    SPARE_BYTES,
    SPARE_GRAPHEMES,
    Allowed,
    Checked,
    allow_set,
    check,
    langs_of,
    make,
    neutralise,
    seed_of,
    visibility_for,
)
from bot.text import clean, graphemes, size
from bot.values import BotIdentity, Limits
from model.engine import FinishReason, Generation
from schemas.feed import Facet, Post, Visibility
from schemas.ids import reply_id
from tests.bot.make import (
    ALICE,
    BOB,
    BOT,
    NOW,
    around,
    link_facet,
    mention,
    mention_facet,
    post,
    run_of,
)
from tests.examples import examples

NOBODY = Allowed({}, {})
LIMITS = Limits(max_graphemes=300, max_bytes=3000)

LINKIFY = LinkifyIt(options={"fuzzy_ip": True}).tlds(TLDS)
_TLD = "|".join(sorted(map(re.escape, map(str.lower, TLDS)), key=len, reverse=True))
PLATFORMS = [
    # Mastodon: Account::MENTION_RE
    re.compile(
        r"(?<![=/\w])@(([a-z0-9_]+([a-z0-9_.-]+[a-z0-9_]+)?)(?:@[\w.-]+[\w]+)?)", re.IGNORECASE
    ),
    # Bluesky: MENTION_REGEX and URL_REGEX of @atproto/api
    re.compile(r"(?:^|\s|\()@[a-zA-Z0-9.-]+\b"),
    re.compile(
        rf"(?:^|\s|\()(?:https?://\S+|[a-z][a-z0-9]*(?:\.[a-z0-9]+)*\.(?:{_TLD})\b)", re.IGNORECASE
    ),
    # twitter-text: validMentionOrList (with its fullwidth sign), and ASCII domains in any script
    re.compile(r"(?:^|[^a-zA-Z0-9_!#$%&*@＠])[@＠][a-zA-Z0-9_]{1,20}"),
    re.compile(rf"(?<![a-z0-9@＠])[a-z0-9-]+\.(?:{_TLD})(?![a-z0-9])", re.IGNORECASE),
]


def said(
    text: str,
    finish: FinishReason = "stop",
    allowed: Allowed = NOBODY,
    *,
    markdown: bool = False,
) -> Checked:
    limits = replace(LIMITS, markdown=markdown)
    return check(Generation(text, (), (), finish), allowed, limits, "en")


def facets_of(checked: Checked) -> tuple[Facet, ...]:
    """Those of all parts; most texts here have one."""
    return tuple(facet for part in checked.parts for facet in part.facets)


def platform_links(text: str) -> list[str]:
    found = [match.raw for match in LINKIFY.match(text) or []]
    return found + [match[0].strip(" (\n") for rule in PLATFORMS for match in rule.finditer(text)]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Ask @bob or ＠carol.", "Ask bob or carol."),
        ("Ask @a@b.example!", "Ask a!"),
        ("Ask @name.bsky.social, ok?", "Ask name, ok?"),
        ("See https://evil.example/x?y.", "See [link]."),
        ("See evil.com.", "See evil. com."),
        ("The end.Next one is at evil.com/x.", "The end. Next one is at evil. com/x."),
        ("Write to joe@evil.com", "Write to [link]"),
        ("Fake: www.@evil.com", "Fake: [link]"),
        ("1.2.3.4 and example。com", "1.2.3. 4 and example。 com"),
        ("//v1.2 and //a.b/c, not 1/2.5", "//v1. 2 and //a. b/c, not 1/2.5"),
        ("@@@bob", "bob"),
        ("これはexample.comです", "これはexample. comです"),
        ("ok\u202e moc.enog", "ok moc. enog"),
    ],
)
def test_links_and_handles_outside_the_allow_set_become_plain_words(text: str, plain: str) -> None:
    checked = said(text)
    assert checked.text == plain
    assert facets_of(checked) == ()


WORDS = [
    "@", "＠", "﹫", "@bob", "@a@b.example", ".", "。", "．", "com", "example", "evil.com", "www.",
    "http://", "https://", "//", "://", "mailto:", "javascript:", "xn--p1ai", "1.2.3.4", "/", "?q=",
    " ", "\n", "-", "_", "a", "Z", "9", "é", "e\u0301", "\u200b", "\u200d", "\u00ad", "\u202e",
    "日本", "みんな", "рф", "(", ")", "[", "]", "<", ">", "!", "#", "…", "👩‍👩‍👧", "[link]", "｜",
]  # fmt: skip
hostile = st.lists(st.sampled_from(WORDS), max_size=25).map("".join)


@examples(200)
@given(hostile | st.text(max_size=120))
@example("www.@@evil.com")
@example("a@b@c.com@d")
@example("http://[link].com/@x")
@example("//1.2.3.4")
@example("see //10.0.0.1/x, \\\\127.0.0.1 and ///1.2")
@example("//a.1.2.3.4")
@example("//é.é")
@example("//⒔a.9")
@example("a⒔.com")
@example("[link]@a@b.example@//рфa.a.")
def test_no_platform_finds_a_link_or_a_call(text: str) -> None:
    checked = said(text)
    assert platform_links(checked.text) == []
    assert facets_of(checked) == ()


@examples(100)
@given(hostile | st.text(max_size=120))
@example("@bob@.@bob()")
@example("éhttps://evil.com/x(．<)")
@example("www._://_http://")
@example("`**bold**`")
def test_what_was_checked_stays_as_it_is(text: str) -> None:
    """But for markdown, which is made plain once: what a code span shows is no mark, and
    ``[link]()`` no link."""
    once = said(text).text
    assert clean(neutralise(once, NOBODY)) == once
    shown = said(text, markdown=True).text
    assert said(shown, markdown=True).text == shown


MARKS = [
    "**", "*", "_", "`", "```\n", "[", "](", "][", "]: ", ")", "![", "<", ">", "</b>", "<a href=",
    "\\", "\\.", "&#46;", "&#64;", "&#", "&", ";", "46", "&period;", "&colon;", "%2E", "# ", "- ",
    "> ", "\n\n", "    ", "x", "evil", '"', "<!--", "-->", "made-up:", "~~", "&amp;", "&#38;",
    "<div>\n",
]  # fmt: skip
SHOWS = MarkdownIt("commonmark", {"html": True}).enable("strikethrough")
SHOWS.validateLink = lambda url: True  # type: ignore[method-assign]  # a platform less careful
HARMLESS = re.compile(r' (?:class="language-[^"]*"|start="\d+")')


@examples(300)
@given(st.lists(st.sampled_from([*WORDS, *MARKS]), max_size=25).map("".join))
@example("[x](https&#58;//evil&#46;com)")
@example("[x](https\\://evil\\.com) ![x](//evil%2Ecom)")
@example("evil&#46;com, evil\\.com, &#64;bob and @**bob**")
@example('<a href="//evil%2Ecom">x</a> <made-up:x>')
@example("<div>\n<a href=//evil%2Ecom>x</a>")
@example("[x]\n\n[x]: //evil%2Ecom")
@example("> " * 60 + "[x](//evil%2Ecom)")
@example("![" * 60 + "a" + "](x)" * 60)
def test_no_link_hides_in_the_markdown_of_a_platform_that_shows_it(text: str) -> None:
    html = SHOWS.render(said(text, markdown=True).text)
    tags = re.findall(r"<[^>]*>", html)
    assert not [t for t in tags if re.match(r"<\w+\s+\w", HARMLESS.sub("", t))]
    assert platform_links(unescape(re.sub(r"<[^>]*>", "", html))) == []


URL = "https://news.example.org/a?b=1"


def asking(
    text: str = "@twite ask @bob about news.example.org/a, not @carol", **fields: Any
) -> Post:
    facets = [
        mention_facet(text, "@bob", BOB.id),
        link_facet(text, "news.example.org/a", URL),
    ]
    return mention(text, facets=facets, **fields).post


def test_the_allow_set_is_the_asker_and_what_the_asker_faceted() -> None:
    allowed = allow_set(asking(), BOT.id)
    assert allowed.accounts == {"alice": ALICE.id, "bob": BOB.id}  # no facet on @carol, no bot
    assert set(allowed.urls.values()) == {URL}


def test_allowed_handles_and_urls_stay_and_get_facets() -> None:
    allowed = allow_set(asking(), BOT.id)
    text = f"é @Alice, ask @bob: {URL} or news.example.org/a?b=1 not @carol @twite evil.com"
    checked = said(text, allowed=allowed)
    assert checked.text == (
        f"é @Alice, ask @bob: {URL} or news.example.org/a?b=1 not carol twite evil. com"
    )
    raw = checked.text.encode()
    shown = [(raw[f.byte_start : f.byte_end].decode(), f) for f in facets_of(checked)]
    assert [word for word, _ in shown] == ["@Alice", "@bob", URL, "news.example.org/a?b=1"]
    assert [f.account_id for _, f in shown] == [ALICE.id, BOB.id, None, None]
    assert [f.url for _, f in shown] == [None, None, URL, URL]


@pytest.mark.parametrize(
    "text",
    [
        "@bobby @bob.evil @bob@evil.example x@bob /@bob",
        f"{URL}2 {URL}/x http://news.example.org/a?b=1 news.example.org",
        "evil.news.example.org/a?b=1",
        f"x{URL} {URL}@evil.com",
    ],
)
def test_what_only_looks_allowed_is_not(text: str) -> None:
    checked = said(text, allowed=allow_set(asking(), BOT.id))
    assert facets_of(checked) == ()
    assert platform_links(checked.text) == []


@examples(100)
@example("@alice//a.9")
@example(f"//a1.2.3 {URL}")
@given(st.lists(st.sampled_from([*WORDS, "@alice", URL, "news.example.org/a?b=1"])).map("".join))
def test_with_an_allow_set_every_link_found_is_in_it(text: str) -> None:
    allowed = allow_set(asking(), BOT.id)
    checked = said(text, allowed=allowed)
    assert clean(neutralise(checked.text, allowed)) == checked.text
    raw = checked.text.encode()
    good = {"@alice", "@bob", "＠alice", "＠bob", "﹫alice", "﹫bob", URL, "news.example.org/a?b=1"}
    shown = {raw[f.byte_start : f.byte_end].decode() for f in facets_of(checked)}
    assert shown <= good
    rest = checked.text
    for facet in sorted(facets_of(checked), key=lambda f: -f.byte_start):
        data = rest.encode()
        rest = (data[: facet.byte_start] + b" " + data[facet.byte_end :]).decode()
    assert platform_links(rest) == []


def test_a_handle_claimed_by_two_accounts_is_nobodys() -> None:
    text = "@twite hello @dan and @dan"
    second = text.rindex("@dan")
    facets = [
        mention_facet(text, "@dan", "dan-1"),
        Facet(type="mention", byte_start=second, byte_end=second + 4, account_id="dan-2"),
    ]
    accounts = allow_set(mention(text, facets=facets).post, BOT.id).accounts
    assert accounts == {"alice": ALICE.id}
    claimed = "@twite hi @alice"
    impostor = [mention_facet(claimed, "@alice", "somebody-else")]
    assert allow_set(mention(claimed, facets=impostor).post, BOT.id).accounts == {"alice": ALICE.id}


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "https://exa mple.org/",
        "ftp://example.org/",
        "https://example.org/a)",
        "https://x.org/" + "y" * 500,
        "http://x/" + "a.com/" * 340,
        "https://good.com@evil.com/",
        "https://localhost/",
        "https://1.2.3.4/",
        "https://a-.org/",
        "https://a.org:99999/",
        "https://a.org/a..b",
        "https://example.org/\u202e",
        "@bob",
    ],
)
def test_an_odd_url_is_never_allowed(url: str) -> None:
    text = "@twite look here"
    allowed = allow_set(mention(text, facets=[link_facet(text, "here", url)]).post, BOT.id)
    assert allowed.urls == {}


PARTS = [
    "a",
    "Z",
    "é",
    "мир",
    "0",
    "-",
    "_",
    ".",
    ",",
    "!",
    "?",
    "/",
    "#",
    "=",
    "&",
    "%20",
    "@b",
    "*",
    "~",
    ":",
    "+",
]


@examples(300)
@given(
    st.sampled_from(
        ["example.org", "a-b.мир.рф", "xn--e1afmkfd.com:8080", "a.b.example.com:65535"]
    ),
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
)
def test_a_platform_takes_every_allowed_url_as_a_whole_or_not_at_all(host: str, path: str) -> None:
    text = "@twite look here"
    asked = mention(text, facets=[link_facet(text, "here", f"https://{host}/{path}")]).post
    for form in allow_set(asked, BOT.id).urls:
        found = [match.raw for match in LINKIFY.match(form) or []]
        assert found == [form] or (found == [] and not form.startswith("https://"))


def test_ordinary_urls_are_allowed() -> None:
    text = "@twite look here"
    for url in (
        "https://example.org", "HTTP://Example.org/", "https://mastodon.example/@bob/12",
        "https://a.example/wiki/Fußball?x=1&y=%20#a,b", "https://xn--e1afmkfd.xn--p1ai/",
        "https://мир.рф:8080/x.html",
    ):  # fmt: skip
        allowed = allow_set(mention(text, facets=[link_facet(text, "here", url)]).post, BOT.id)
        checked = said(f"See ({url}), ok?", allowed=allowed)
        assert checked.text == f"See ({url}), ok?"
        assert [facet.url for facet in facets_of(checked)] == [url]


def test_a_facet_over_other_words_allows_no_handle() -> None:
    text = "@twite click here"
    facets = [mention_facet(text, "click", "acc-eve")]
    assert allow_set(mention(text, facets=facets).post, BOT.id).accounts == {"alice": ALICE.id}


def test_only_mention_facets_name_accounts_and_only_so_many() -> None:
    text = "@twite " + " ".join(f"@u{i}" for i in range(500))
    facets = [mention_facet(text, f"@u{i} ", f"acc-{i}") for i in range(200, 300)]
    names = [replace_end(f) for f in facets]
    accounts = allow_set(post(text=text, facets=(*names, *names)), BOT.id).accounts
    assert len(accounts) == MAX_FACETS + 1
    odd = Facet(type="link", byte_start=7, byte_end=10, account_id="acc-0", url="https://a.org")
    assert allow_set(post(text=text, facets=(odd,)), BOT.id).accounts == {"alice": ALICE.id}


def test_only_so_many_links_count() -> None:
    text = "@twite look here"
    facets = [link_facet(text, "here", f"https://a{i}.example/") for i in range(100)]
    urls = allow_set(mention(text, facets=facets).post, BOT.id).urls
    assert set(urls.values()) == {f"https://a{i}.example/" for i in range(MAX_LINKS)}


FINDERS = ("links", "hard_links", "dots", "handles")


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every text that a finder is given."""
    lengths: list[int] = []

    def counted(finder: Callable[[str], Any]) -> Callable[[str], Any]:
        def find(text: str) -> Any:
            lengths.append(len(text))
            return finder(text)

        return find

    for name in FINDERS:
        monkeypatch.setattr(bot.reply, name, counted(getattr(bot.reply, name)))
    return lengths


def test_what_an_asker_faceted_is_hardly_looked_at(looked_at: list[int]) -> None:
    text = "@twite " + "@" + "x" * 5000 + " look here"
    facets = [link_facet(text, "here", f"http://x/{i}." + "a.com/" * 340) for i in range(100)]
    facets += [mention_facet(text, "@" + "x" * 5000, f"acc-{i}") for i in range(100)]
    assert allow_set(mention(text, facets=facets).post, BOT.id).urls == {}
    assert sum(looked_at) <= MAX_HANDLE  # the asker's own handle


WORST = [
    "a.", "@alice ", "@", "a@", "一a.a.", "1.1.1.1:", "http://", "a.com/", "x.org/a ", "(", "« ",
    "👨‍👩‍👧", "a\u0301", "www.", "\n x", "aa.", "@a@", "。com", "\x00",
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", WORST)
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_the_work_does_not_grow_with_the_generation(
    unit: str, finish: FinishReason, looked_at: list[int]
) -> None:
    allowed = Allowed({"alice": "acc-alice"}, {"x.org/a": "https://x.org/a"})
    checked = said("一" + unit * (1_000_000 // len(unit)) + "é.com", finish, allowed)
    assert max(looked_at, default=0) <= SPARE_BYTES * LIMITS.max_bytes * LIMITS.max_parts
    # few rounds and few places for a cut, then nothing changes any more
    assert len(looked_at) <= 25 * len(FINDERS)
    assert len(checked.parts) <= LIMITS.max_parts
    for part in checked.parts:
        assert size(part.text)[0] <= LIMITS.max_graphemes
        assert size(part.text)[1] <= LIMITS.max_bytes


def test_what_is_left_out_of_a_long_generation_ends_at_a_sentence() -> None:
    spare = SPARE_GRAPHEMES * LIMITS.max_graphemes * LIMITS.max_parts
    link = "https://evil.example/" + "x" * (spare - 100)
    assert said(f"One. Two {link} three. Four and " + "five" * 100).text == "One. Two [link] three."


def replace_end(facet: Facet) -> Facet:
    """Without the blank at its end, which kept ``@u20`` from matching inside ``@u200``."""
    return facet.model_copy(update={"byte_end": facet.byte_end - 1})


def test_a_federated_asker_may_be_called() -> None:
    far = ALICE.model_copy(update={"handle": "alice@far.example"})
    allowed = allow_set(mention(author=far).post, BOT.id)
    checked = said("Hi @alice@far.example, not @alice or @alice@near.example", allowed=allowed)
    assert checked.text == "Hi @alice@far.example, not alice or alice"
    assert [f.account_id for f in facets_of(checked)] == [ALICE.id]


def test_an_allowed_handle_that_is_cut_calls_nobody_else() -> None:
    limits = Limits(max_graphemes=9, max_bytes=100)
    allowed = Allowed({"alicebob": "acc-1"}, {})
    checked = check(Generation("Hi you @alicebob", (), (), "stop"), allowed, limits, None)
    assert "@" not in checked.text


@examples(100)
@given(hostile, st.integers(1, 30), st.integers(4, 60))
def test_cutting_makes_no_link(text: str, count: int, length: int) -> None:
    limits = Limits(max_graphemes=count, max_bytes=length)
    checked = check(Generation(text, (), (), "stop"), NOBODY, limits, None)
    assert platform_links(checked.text) == []
    assert size(checked.text) <= (count, length)
    assert len(graphemes(checked.text)) <= count


@pytest.mark.parametrize("text", ["", "  \n ", "\x00\u202e", "...", "https://evil.com", "!? @@"])
def test_nothing_left_is_nothing_said(text: str) -> None:
    checked = said(text)
    assert checked.text == ""
    assert checked.verdicts[-1].name == "empty"
    assert checked.verdicts[-1].verdict == "skip"


def test_every_check_has_its_verdict() -> None:
    verdicts = said("See evil.com\x00 now. And th", finish="length").verdicts
    assert [(v.name, v.verdict) for v in verdicts] == [
        ("characters", "changed"),
        ("unfinished", "changed"),
        ("markdown", "pass"),
        ("links-and-handles", "changed"),
        ("length", "pass"),
        ("settled", "pass"),
        ("empty", "pass"),
    ]
    assert said("See evil.com\x00 now. And th", finish="length").text == "See evil. com now."


def test_neutralise_is_a_plain_function() -> None:
    assert neutralise("@bob @alice", Allowed({"alice": "acc-alice"}, {})) == "bob @alice"


def contexts(own: str, *others: str) -> tuple[ContextPost, ...]:
    above = [post(f"at://p/{i}", visibility=v, author=BOB) for i, v in enumerate(others)]
    return around(mention(visibility=own, ancestors=run_of(*above)))


WIDTH = {"public": 0, "unlisted": 1, "followers": 2, "direct": 3}
words = st.sampled_from([*WIDTH, "circle"])


@given(st.sampled_from(list(WIDTH)), st.lists(words, max_size=5))
def test_a_reply_is_never_wider_than_what_it_is_built_on(own: str, others: list[str]) -> None:
    posts = contexts(own, *others)
    visibility = visibility_for(posts)
    known = [WIDTH[own], *(WIDTH[word] for word in others if word in WIDTH)]
    narrowest = max(known)
    assert WIDTH[visibility] >= narrowest
    assert visibility is not Visibility.FOLLOWERS
    if narrowest <= 1:
        assert WIDTH[visibility] == narrowest


def test_what_is_left_out_for_its_length_does_not_narrow() -> None:
    posts = contexts("public", "public", "direct", "public")
    assert visibility_for(posts) is Visibility.DIRECT
    short = spend(posts, len, 80, 5)
    assert [p.included for p in short] == [True, False, True, True]
    assert visibility_for(short) is Visibility.PUBLIC


def test_the_reply_says_what_it_is() -> None:
    asked = asking(langs=("de", "x" * 99, "en"), hops=2, visibility="unlisted")
    event = mention(ancestors=(post("at://p/0", author=BOB),))
    posts = around(event.model_copy(update={"post": asked}))
    checked = said("Hallo @alice", allowed=allow_set(asked, BOT.id))
    bot = BotIdentity(account=BOT, cluster_id="c")
    (reply,) = make(asked, posts, checked, bot, "decision-1", NOW)
    assert reply.in_reply_to == asked.ref
    assert reply.root == asked.ref
    assert reply.author == BOT
    assert reply.labels == ("automated",)
    assert reply.langs == ("de", "en")
    assert reply.hops == 3
    assert (reply.part, reply.parts) == (1, 1)
    assert reply.visibility is Visibility.UNLISTED
    assert [ref.uri for ref in reply.built_on] == ["at://p/0", asked.uri]
    assert reply.conversation_id == "conv-1"
    assert reply.decision_id == "decision-1"
    (again,) = make(asked, posts, checked, bot, "decision-2", NOW)
    assert again.reply_id == reply.reply_id
    edited = asked.model_copy(update={"revision": "r2"})
    (other,) = make(edited, posts, checked, bot, "decision-1", NOW)
    assert other.reply_id != reply.reply_id


def test_a_long_reply_is_several_events_of_one_decision() -> None:
    asked = asking()
    limits = Limits(max_graphemes=80)
    checked = check(
        Generation("It is so, @alice. " * 10, (), (), "stop"),
        allow_set(asked, BOT.id),
        limits,
        "en",
    )
    bot = BotIdentity(account=BOT, cluster_id="c")
    replies = make(
        asked, contexts("unlisted"), checked, bot, "d", NOW, langs=("it",), prompt_hash="abc"
    )
    assert [(reply.part, reply.parts) for reply in replies] == [(1, 3), (2, 3), (3, 3)]
    assert [reply.reply_id for reply in replies] == [
        reply_id(BOT.id, asked.uri, asked.revision, part) for part in (1, 2, 3)
    ]
    assert all(reply.text.endswith(f" ({reply.part}/3)") for reply in replies)
    assert {reply.in_reply_to for reply in replies} == {asked.ref}
    assert {(r.decision_id, r.visibility, r.langs, r.prompt_hash) for r in replies} == {
        ("d", Visibility.UNLISTED, ("it",), "abc")
    }
    for reply in replies:
        raw = reply.text.encode()
        assert {raw[f.byte_start : f.byte_end] for f in reply.facets} == {b"@alice"}


def test_root_is_the_sources_root() -> None:
    root = post("at://p/0").ref
    asked = asking(root=root)
    checked = said("Yes")
    bot = BotIdentity(account=BOT, cluster_id="c")
    (reply,) = make(asked, around(mention()), checked, bot, "d", NOW)
    assert reply.root == root


def test_seed_and_language() -> None:
    seed = seed_of("9a1ff0de-26bb-5e4c-8d3d-0123456789ab")
    assert 0 <= seed < 2**53
    assert seed == seed_of("9a1ff0de-26bb-5e4c-8d3d-0123456789ab")
    assert langs_of(post(langs=("<script>", "pt-BR"))) == ("pt-BR",)
    assert langs_of(post()) == ()
