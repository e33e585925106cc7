"""The report as one page: everything escaped, nothing fetched, nothing run."""

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bot.errors import Trouble
from bot.replay import page as page_module
from bot.replay.page import page, write_page
from schemas.audit import RuleVerdict
from schemas.codes import Outcome
from schemas.replays import Change, NotReplayed, ReplayCompared, ScoreVerdict
from tests.bot.make import NOW
from tests.bot.replay.test_report import item, result, side

EVIL = (
    "</p><script>alert(1)</script><img src=x onerror=alert(1)>"
    "<a href='javascript:1'>{{ 7*7 }}{% raw %}\"'&\N{RIGHT-TO-LEFT OVERRIDE}"
)
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; fails where tags are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


def made(results: Iterable[ReplayCompared]) -> tuple[Page, str]:
    kept = list(results)
    source = "".join(page(lambda: kept, "replay-1", NOW))
    return Page(source), source


def hostile() -> ReplayCompared:
    rule = (RuleVerdict(name=EVIL, verdict=EVIL),)
    return result(
        change=Change.ACTION,
        decision_id=EVIL.replace("\N{RIGHT-TO-LEFT OVERRIDE}", ""),
        conversation_id=EVIL,
        notes=(EVIL,),
        before=side(text=EVIL, reason=EVIL, rules=rule, context=(item(EVIL, EVIL),), model=EVIL),
        after=side(
            text=f"other {EVIL}", template=EVIL, template_hash=EVIL, code_version=EVIL,
            settings_digest=EVIL, model=EVIL,
        ),
        score=ScoreVerdict(verdict="diverged", diverged_at=3, margin=0.5),
    )  # fmt: skip


def test_what_people_wrote_is_text_and_nothing_else() -> None:
    shown, source = made([hostile()])
    assert not {"script", "img", "a", "iframe", "link"} & set(shown.tags)
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert not [name for name, _ in shown.attributes if name in ("src", "href")]
    assert "alert(1)" in shown.text
    assert "{{ 7*7 }}" in shown.text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in source


def test_the_check_would_see_what_is_not_escaped() -> None:
    assert "script" in Page("<p>a<script>alert(1)</script></p>").tags


def test_nothing_is_fetched() -> None:
    _, source = made([hostile(), result()])
    assert "default-src 'none'" in source
    for word in ("http:", "https:", "url(", "@import", "<link"):
        assert word not in source


def test_both_sides_stand_beside_each_other_with_what_changed() -> None:
    one = result(
        change=Change.TEXT,
        before=side(text="Paris is big", context=(item("at://1"),)),
        after=side(text="Lyon is big", context=(item("at://1", "r2"),)),
    )
    shown, source = made([one])
    assert "<del>Paris</del> is big" in source
    assert "<ins>Lyon</ins> is big" in source
    assert "at://1" in shown.text
    assert "in ancestor r2" in shown.text


def test_counts_and_reasons_are_told() -> None:
    gone = result(
        change=Change.NOT_REPLAYED, why=NotReplayed.BEYOND_RETENTION, after=None, asked_model=False
    )
    skipped = result(
        change=Change.ACTION, after=side(outcome=Outcome.SKIPPED, reason="loop", text=None)
    )
    shown, _ = made([gone, skipped, result()])
    assert "3 decisions" in shown.text
    assert "beyond-retention" in shown.text
    assert "skipped, loop" in shown.text
    assert "the model was not asked" in shown.text


def test_private_texts_are_lengths() -> None:
    one = result(hidden=True, before=side(text=None, length=7), after=side(text=None, length=9))
    shown, _ = made([one])
    assert "private, 7 characters" in shown.text
    assert "1 are private" in shown.text


def test_an_empty_replay_has_a_page() -> None:
    shown, _ = made([])
    assert "0 decisions" in shown.text


def test_what_is_too_much_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MOST", 2)
    results = [result(), *(result(change=Change.TEXT, decision_id=f"t-{n}") for n in range(4))]
    shown, source = made(results)
    assert source.count("<article") == 2
    assert "2 more are in the JSON lines" in shown.text
    assert "t-1" in source
    assert "t-2" not in source


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "report.html"
    folder.mkdir()
    with pytest.raises(Trouble, match="can't be written"):
        write_page(folder, lambda: [result()], "replay-1", NOW)
    assert list(tmp_path.iterdir()) == [folder]
    file = tmp_path / "other.html"
    write_page(file, lambda: [result()], "replay-1", NOW)
    assert file.read_text().startswith("<!doctype html>")
    assert (file.stat().st_mode & 0o777) == 0o600
