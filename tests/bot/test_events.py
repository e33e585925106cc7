"""Events as a platform would send them hold to the contract."""

from bot.ask import to_output
from bot.events import (
    Person,
    addressed,
    bot_person,
    mention_of,
    message_to,
    post,
    structured,
    topic_and_key,
)
from bot.settings import BotSettings

BOT = BotSettings(account_id="bot-7", handle="vögel")
ALICE = Person("acct-alice", "alice", "Alice")


def test_the_facet_covers_the_handle_in_bytes() -> None:
    text, (facet,) = addressed(BOT, "hello")
    assert text == "@vögel hello"
    assert text.encode()[facet.byte_start : facet.byte_end].decode() == "@vögel"
    assert facet.account_id == "bot-7"


def test_a_thread_is_chained_by_refs() -> None:
    root = post(ALICE, "root", conversation_id="c")
    below = post(bot_person(BOT), "below", conversation_id="c", above=root)
    event = mention_of(BOT, ALICE, "why?", conversation_id="c", thread=(root, below))
    asking = event.data.post
    assert (asking.root, asking.parent) == (root.ref, below.ref)
    assert [above.uri for above in event.data.ancestors] == [root.uri, below.uri]
    assert below.author.bot


def test_topic_and_key_are_the_contracts() -> None:
    mentioned = mention_of(BOT, ALICE, "hi", conversation_id="c")
    assert topic_and_key(mentioned) == ("feed.mentions", "c")
    assert topic_and_key(message_to(BOT, ALICE, "hi")) == (
        "feed.direct-messages",
        "talk:acct-alice",
    )


def test_a_structured_event_says_what_the_record_says() -> None:
    event = message_to(BOT, ALICE, "hi")
    headers = dict(to_output(event).headers)
    line = structured(event)
    assert headers["ce_id"] == line["id"].encode()
    assert headers["ce_type"] == b"twite.feed.direct-message.created.v1"
    assert line["data"]["message"]["participants"] == ["acct-alice", "bot-7"]


def test_the_same_words_have_the_same_revision() -> None:
    first = post(ALICE, "same", conversation_id="c")
    second = post(ALICE, "same", conversation_id="d")
    other = post(ALICE, "other", conversation_id="c")
    assert first.revision == second.revision != other.revision
    assert first.uri != second.uri
