"""Records as literal bytes: what is on the topics of others must be read so for ever."""

from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.codec import decode, encode
from schemas.control import ModerationCommanded
from schemas.envelope import Envelope, Event
from schemas.feed import (
    Account,
    AccountChanged,
    Attachment,
    Facet,
    MentionCreated,
    MentionReason,
    Message,
    MessageCreated,
    Post,
    Ref,
    Visibility,
)
from schemas.record import Header, Output, Record
from schemas.replies import ReplyCreated

ANN = Account(id="acct:1", handle="ann")
BOT = Account(id="acct:bot", handle="twite", display_name="Twite", bot=True)
SIX = datetime(2026, 11, 24, 6, tzinfo=UTC)


def headers(name: bytes) -> tuple[Header, ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"platform"),
        ("ce_type", name),
        ("ce_time", b"2026-11-24T06:00:00Z"),
        ("content-type", b"application/json"),
    )


def event(name: str, data: Any) -> Event[Any]:
    return Event(Envelope(id="1", source="platform", type=name, time=SIX), data)


# As a platform writes them: members in its own order, escapes, members that nobody knows.
MENTION = (
    b' {"mentioned_account_id" : "acct:bot","mood":{"x":[1,2e3]},"post":{"uri":"at://p/2",'
    b'"revision":"cid2","conversation_id":"conv:1","author":{"id":"acct:1","handle":"ann",'
    b'"followers":9},"text":"h\\u00e9 \\ud83d\\ude00 @twite","facets":[{"type":"mention",'
    b'"byte_start":9,"byte_end":15,"account_id":"acct:bot"},{"type":"tag","tag":"x",'
    b'"byte_start":2,"byte_end":3},{"type":"poll","byte_start":0,"byte_end":1}],'
    b'"attachments":[{"type":"image","alt":"cat","width":10}],"langs":["fr"],'
    b'"visibility":"unlisted","created_at":"2026-11-24T06:00:00.25Z","parent":{"uri":"at://p/1",'
    b'"revision":null}},"reason":"reply"}\n'
)
MESSAGE = (
    b'{"message":{"uri":"dm/1","revision":"1","conversation_id":"talk:1","author":{"id":"acct:1",'
    b'"handle":"ann"},"text":"hi\\n","created_at":"2026-11-24T06:00:00Z",'
    b'"participants":["acct:1","acct:bot"]}}'
)

READ: dict[str, tuple[str, bytes, bytes, Any]] = {
    "twite.feed.mention.created.v1": (
        "feed.mentions",
        b"conv:1",
        MENTION,
        MentionCreated(
            mentioned_account_id="acct:bot",
            reason=MentionReason.REPLY,
            post=Post(
                uri="at://p/2",
                revision="cid2",
                conversation_id="conv:1",
                author=ANN,
                text="hé 😀 @twite",
                facets=(Facet(type="mention", byte_start=9, byte_end=15, account_id="acct:bot"),),
                attachments=(Attachment(type="image", alt="cat"),),
                langs=("fr",),
                visibility="unlisted",
                created_at=datetime(2026, 11, 24, 6, 0, 0, 250_000, UTC),
                parent=Ref(uri="at://p/1"),
            ),
        ),
    ),
    "twite.feed.direct-message.created.v1": (
        "feed.direct-messages",
        b"talk:1",
        MESSAGE,
        MessageCreated(
            message=Message(
                uri="dm/1",
                revision="1",
                conversation_id="talk:1",
                author=ANN,
                text="hi\n",
                created_at=SIX,
                participants=("acct:1", "acct:bot"),
            )
        ),
    ),
    "twite.feed.account.changed.v1": (
        "feed.accounts",
        b"acct:1",
        b'{"account_id":"acct:1","opted_out":true}',
        AccountChanged(account_id="acct:1", opted_out=True),
    ),
}

# As Twite writes them: in the order of the fields, nulls there, no needless escapes.
WRITTEN: dict[str, tuple[str, bytes, bytes, Any]] = {
    "twite.bot.reply.created.v1": (
        "bot.replies",
        b"conv:1",
        (
            b'{"text":"h\xc3\xa9 \xf0\x9f\x98\x80 \\"\\u0000","facets":[],"reply_id":"r",'
            b'"conversation_id":"conv:1","in_reply_to":{"uri":"at://p/2","revision":"cid2"},'
            b'"root":{"uri":"at://p/1","revision":null},"author":{"id":"acct:bot",'
            b'"handle":"twite","display_name":"Twite","bot":true,"created_at":null},'
            b'"langs":["fr"],"visibility":"unlisted","part":1,"parts":1,"labels":["automated"],'
            b'"built_on":[{"uri":"at://p/2","revision":"cid2"}],"decision_id":"d","hops":1,'
            b'"prompt_hash":null,"created_at":"2026-11-24T06:00:00Z"}'
        ),
        ReplyCreated(
            reply_id="r",
            conversation_id="conv:1",
            in_reply_to=Ref(uri="at://p/2", revision="cid2"),
            root=Ref(uri="at://p/1"),
            author=BOT,
            text='hé 😀 "\x00',
            langs=("fr",),
            visibility=Visibility.UNLISTED,
            part=1,
            parts=1,
            built_on=(Ref(uri="at://p/2", revision="cid2"),),
            decision_id="d",
            hops=1,
            created_at=SIX,
        ),
    ),
    "twite.bot.moderation.commanded.v1": (
        "bot.moderation",
        b"r",
        (
            b'{"command":"takedown","subject":"r","reason":"rude","moderator":"m",'
            b'"decision_id":null,"text":null,"text_digest":null,"prompt":null,'
            b'"review_id":null}'
        ),
        ModerationCommanded(command="takedown", subject="r", reason="rude", moderator="m"),
    ),
}


@pytest.mark.parametrize("name", [*READ, *WRITTEN])
def test_these_bytes_are_read_as_this_event(name: str) -> None:
    topic, key, value, data = {**READ, **WRITTEN}[name]
    record = Record(
        topic=topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=key,
        value=value,
        headers=headers(name.encode()),
    )
    assert decode(record) == event(name, data)


@pytest.mark.parametrize("name", WRITTEN)
def test_this_event_is_written_as_these_bytes(name: str) -> None:
    topic, key, value, data = WRITTEN[name]
    written = encode(topic, key.decode(), event(name, data).envelope, data)
    assert written == Output(topic=topic, key=key, value=value, headers=headers(name.encode()))
