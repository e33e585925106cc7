"""The feed that the demo plays when no other is given: a few lines of a small platform.

Out come events with a title each; together they show every kind of outcome: a reply in a
thread with a quoted post, two strangers under one post, a private talk that is remembered until
``/forget``, the bot's own post, another bot within and beyond the hop limit, a post for
followers, the same event twice, and a record that is no event; then what is taken back: a post
that is edited, one that is deleted, and somebody who wants no answers, until the end. Ids are new
for each run, so a demo can run again on the same broker; the account that opts out is one of
this run, so nobody real does.
"""

from collections.abc import Iterator
from dataclasses import replace

from bot.ask import to_output
from bot.events import (
    Person,
    account_changed,
    addressed,
    bot_person,
    deletion_of,
    edit_of,
    edited,
    mention,
    mention_of,
    message_to,
    post,
)
from bot.forget import COMMAND
from bot.scene import Scene, scene_of
from bot.settings import BotSettings
from schemas import names
from schemas.feed import MentionReason, Post
from schemas.record import Output

ALICE = Person("acct-alice", "alice", "Alice")
BRUNO = Person("acct-bruno", "bruno", "Bruno")
CHIDI = Person("acct-chidi", "chidi", "Chidi")
QUIZ = Person("acct-quiz-bot", "quizbot", "Quiz Bot", bot=True)


FIRST = "What is the capital of Germany?"
EDITED = "What is the capital of Egypt?"
DELETED = "What is the capital of Canada?"
COUNTRY = "What is the capital of my country?"


def scenes(bot: BotSettings, run: str) -> Iterator[Scene]:
    """The feed for one run; ``run`` makes its ids different from those of other runs."""
    yield from _thread_with_a_quote(bot, run)
    yield from _two_strangers(bot, run)
    yield from _private_talk(bot, run)
    yield from _bots(bot, run)
    yield _followers_only(bot, run)
    yield _garbage(run)
    yield _after_the_garbage(bot, run)
    yield from _taken_back(bot, run)
    yield from _forgotten(bot, run)


def _thread_with_a_quote(bot: BotSettings, run: str) -> Iterator[Scene]:
    thread = f"{run}:paris"
    quoted = post(
        CHIDI, "The Eiffel Tower in Paris was finished in 1889.", conversation_id=f"{run}:towers"
    )
    first = post(ALICE, "We are going to France in June!", conversation_id=thread)
    second = post(BRUNO, "Lovely. See this:", conversation_id=thread, above=first, quoted=quoted)
    text, facets = addressed(bot, "When was the Eiffel Tower finished?")
    asking = post(ALICE, text, conversation_id=thread, facets=facets, above=second, quoted=quoted)
    event = mention(
        bot, asking, ancestors=(first, second), quoted=quoted, event_id=f"{run}:paris-1"
    )
    yield scene_of("a question below a thread, with a quoted post", to_output(event))
    yield scene_of("the event of 1, delivered again", to_output(event))


def _two_strangers(bot: BotSettings, run: str) -> Iterator[Scene]:
    thread = f"{run}:quiz"
    root = post(CHIDI, "Quiz: capitals of the world.", conversation_id=thread)
    for person, question in (
        (ALICE, "What is the capital of Italy?"),
        (BRUNO, "What is the largest ocean?"),
    ):
        yield _mention(
            f"two strangers in one thread: {person.display_name}",
            bot,
            person,
            question,
            thread,
            (root,),
        )


def _private_talk(bot: BotSettings, run: str) -> Iterator[Scene]:
    for title, text in (
        ("a private talk, its first message", "I am from Japan. What is sushi?"),
        ("the same talk: the answer needs what was said before", COUNTRY),
    ):
        yield _message(title, bot, text, run)


def _bots(bot: BotSettings, run: str) -> Iterator[Scene]:
    thread = f"{run}:bots"
    own = post(bot_person(bot), "Good morning, feed!", conversation_id=thread)
    event = mention(bot, own)
    yield scene_of("a post by the bot itself, which it leaves alone", to_output(event))
    for title, hops in (
        ("another bot, within the limit of bots answering bots", bot.hop_limit),
        ("another bot, beyond the limit of bots answering bots", bot.hop_limit + 1),
    ):
        text, facets = addressed(bot, "What is the capital of France?")
        asking = post(QUIZ, text, conversation_id=thread, facets=facets, hops=hops)
        yield scene_of(title, to_output(mention(bot, asking)))


def _followers_only(bot: BotSettings, run: str) -> Scene:
    text, facets = addressed(bot, "What is the opposite of hot?")
    asking = post(
        BRUNO,
        text,
        conversation_id=f"{run}:opposites",
        facets=facets,
        visibility="followers",
    )
    title = "a post for followers: the answer is for the asker only"
    return scene_of(title, to_output(mention(bot, asking)))


def _garbage(run: str) -> Scene:
    record = Output(
        topic=names.FEED_MENTIONS,
        key=f"{run}:quiz".encode(),
        value=b'\xff\xfe{"post": not JSON',
        headers=(("ce_type", b"nonsense"),),
    )
    return scene_of("bytes that are no event: they must not stop what comes after them", record)


def _after_the_garbage(bot: BotSettings, run: str) -> Scene:
    title = "an answer to the bot's own post, right behind the bytes of 11"
    root: Post = post(bot_person(bot), "Ask me about animals.", conversation_id=f"{run}:quiz")
    text = "How many legs does a spider have?"
    asking = post(CHIDI, text, conversation_id=f"{run}:quiz", above=root)
    event = mention(bot, asking, ancestors=(root,), reason=MentionReason.REPLY)
    return scene_of(title, to_output(event))


def _taken_back(bot: BotSettings, run: str) -> Iterator[Scene]:
    first = mention_of(bot, BRUNO, FIRST, conversation_id=f"{run}:edited")
    second = mention_of(bot, CHIDI, DELETED, conversation_id=f"{run}:deleted")
    yield scene_of("a question that will be edited", to_output(first))
    yield scene_of("a question that will be deleted", to_output(second))
    dora = Person(f"acct-dora-{run}", "dora", "Dora")
    yield _wish("somebody opts out", dora, opted_out=True)
    now = edited(first.data.post, EDITED)
    edit = edit_of(first.data.post, now)
    yield scene_of("the question of 13 is edited: its reply is corrected", to_output(edit))
    gone = deletion_of(second.data.post)
    shown = scene_of("the question of 14 is deleted: its reply is taken back", to_output(gone))
    yield replace(shown, who="@chidi (deletes)", text=second.data.post.text)
    asked = mention_of(bot, dora, "What is the capital of Peru?", conversation_id=f"{run}:peru")
    yield scene_of("who opted out gets no answer, also when asking", to_output(asked))
    yield _wish("and opts in again", dora, opted_out=False)


def _forgotten(bot: BotSettings, run: str) -> Iterator[Scene]:
    """The talk of 5 and 6 goes on."""
    for title, text in (
        ("the talk of 5 and 6: forget what was said", COMMAND),
        ("the question of 6 again: nobody knows any more", COUNTRY),
    ):
        yield _message(title, bot, text, run)


def _wish(title: str, person: Person, *, opted_out: bool) -> Scene:
    """Shown with the handle, which the event does not have."""
    scene = scene_of(title, to_output(account_changed(person, opted_out=opted_out)))
    text = scene.text if opted_out else "wants answers of the bot again"
    return replace(scene, who=f"@{person.handle}", text=text)


def _message(title: str, bot: BotSettings, text: str, run: str) -> Scene:
    event = message_to(bot, ALICE, text, conversation_id=f"{run}:talk-alice")
    return scene_of(title, to_output(event))


def _mention(
    title: str, bot: BotSettings, person: Person, text: str, thread: str, above: tuple[Post, ...]
) -> Scene:
    event = mention_of(bot, person, text, conversation_id=thread, thread=above)
    return scene_of(title, to_output(event))
