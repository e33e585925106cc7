"""The converters, on made-up samples in the data sets' own forms."""

import json
from pathlib import Path

import pytest

from bot.feed import read_file
from bot.settings import BotSettings
from schemas.codec import decode
from schemas.feed import MentionCreated, MessageCreated
from schemas.record import Output
from tests.bot.outcomes import as_record
from tests.trials.convert import main

BOT = BotSettings()

TREE = {
    "message_tree_id": "t1",
    "prompt": {
        "message_id": "m1",
        "text": "What is a bird?",
        "role": "prompter",
        "replies": [
            {
                "message_id": "m2",
                "text": "An animal.",
                "role": "assistant",
                "replies": [
                    {"message_id": "m3", "text": "And a fish?", "role": "prompter", "replies": []}
                ],
            }
        ],
    },
}
CHAT = {
    "k1": {
        "messages": [
            [{"text": "Hello!", "timestamp": "2018-05-10T15:01:44Z", "sender": "s1"}],
            [{"text": "hey", "timestamp": "2018-05-10T15:01:55Z", "sender": "s2"}],
            [{"text": "bye", "timestamp": "2018-05-10T15:02:11Z", "sender": "s1"}],
        ]
    }
}
IRC = """\
[03:10] <yohannes> can anyone recommend an app?
=== somebody has joined
[03:10] <Hikaru79> why not this one?
[03:11] <yohannes> how do I install it?
"""
ANNOTATIONS = "0 0 -\n0 2 -\n2 3 -\n"
QUESTION = {"question_id": 81, "turns": ["Write a poem.", "Now another."]}


def convert(kind: str, path: Path, *options: str) -> list[MentionCreated | MessageCreated]:
    feed = path.parent / "feed.jsonl"
    main([kind, str(path), "--output", str(feed), *options])
    return [decoded(feed_entry.output) for feed_entry in read_file(feed)]


def decoded(output: Output) -> MentionCreated | MessageCreated:
    data = decode(as_record(output)).data
    assert isinstance(data, MentionCreated | MessageCreated)
    return data


def test_oasst_prompts_are_mentions_below_what_was_said(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    path.write_text(json.dumps(TREE) + "\n")
    first, second = convert("oasst", path)
    assert isinstance(first, MentionCreated)
    assert isinstance(second, MentionCreated)
    assert first.ancestors == ()
    assert first.post.text == f"@{BOT.handle} What is a bird?"
    assert [post.text for post in second.ancestors] == [first.post.text, "An animal."]
    assert second.ancestors[1].author.id == BOT.account_id
    assert second.post.parent is not None
    assert second.post.parent.uri == second.ancestors[1].uri
    assert [facet.account_id for facet in second.post.facets] == [BOT.account_id]


def test_chitchat_is_a_private_talk_of_the_first_to_speak(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    path.write_text(json.dumps(CHAT))
    talk = convert("chitchat", path)
    messages = [data.message for data in talk if isinstance(data, MessageCreated)]
    assert [message.text for message in messages] == ["Hello!", "bye"]
    assert {message.conversation_id for message in messages} == {"chitchat:k1"}
    assert messages[0].participants == ("chitchat:s1", BOT.account_id)


def test_irc_chains_are_threads_of_several_people(tmp_path: Path) -> None:
    (tmp_path / "log.raw.txt").write_text(IRC)
    (tmp_path / "log.annotation.txt").write_text(ANNOTATIONS)
    mentions = [
        data
        for data in convert("irc", tmp_path / "log.raw.txt")
        if isinstance(data, MentionCreated)
    ]
    longest = max(mentions, key=lambda mention: len(mention.ancestors))
    assert [post.author.handle for post in longest.ancestors] == ["yohannes", "Hikaru79"]
    assert longest.post.text == f"@{BOT.handle} how do I install it?"
    uris = [post.uri for mention in mentions for post in (mention.post, *mention.ancestors)]
    assert len(set(uris)) == 3, "a line is one post, wherever it stands"


def test_a_lively_feed_has_edits_and_deletions_and_says_the_same_of_a_post_everywhere(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trees.jsonl"
    trees = (json.dumps(TREE | {"message_tree_id": f"t{n}"}) for n in range(99))
    path.write_text("".join(f"{tree}\n" for tree in trees))
    feed = tmp_path / "feed.jsonl"
    main(["oasst", str(path), "--lively", "--output", str(feed)])
    events = [decode(as_record(entry.output)) for entry in read_file(feed)]
    kinds = {event.envelope.type.removeprefix("twite.feed.") for event in events}
    assert kinds == {"post.created.v1", "post.edited.v1", "post.deleted.v1", "mention.created.v1"}
    mentions = [event.data for event in events if isinstance(event.data, MentionCreated)]
    assert {data.reason.value for data in mentions} == {"mention", "reply"}
    assert {data.ancestors_complete for data in mentions} == {True, False}
    texts = {(p.uri, p.revision): p.text for data in mentions for p in (data.post, *data.ancestors)}
    versions = {p.uri: p for data in mentions for p in (data.post, *data.ancestors)}
    assert all(texts[post.uri, post.revision] == post.text for post in versions.values())


def test_mt_bench_questions_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(QUESTION) + "\n")
    (mention,) = convert("mt-bench", path, "--bot-account", "b7", "--bot-handle", "owl")
    assert isinstance(mention, MentionCreated)
    assert mention.post.text == "@owl Write a poem."
    assert mention.mentioned_account_id == "b7"


def test_limit_and_seed_choose_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(QUESTION | {"question_id": n}) + "\n" for n in range(20)))

    def ids(seed: str) -> list[str]:
        chosen = convert("mt-bench", path, "--limit", "5", "--seed", seed)
        return [data.post.uri for data in chosen if isinstance(data, MentionCreated)]

    assert len(ids("1")) == 5
    assert ids("1") == ids("1") != ids("2")


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["tea-leaves", str(tmp_path)])
