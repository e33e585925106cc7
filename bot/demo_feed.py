"""The feed that the demo plays when no other is given: a few lines of a small platform.

Out come events with a title each; together they show every kind of outcome: a reply in a
thread with a quoted post, two strangers under one post, a private talk, the bot's own post,
another bot within and beyond the hop limit, a post for followers, the same event twice, and a
record that is no event. Ids are new for each run, so a demo can run again on the same broker.
"""

from collections.abc import Iterator

from bot.ask import to_output
from bot.events import Person, addressed, bot_person, mention, mention_of, message_to, post
from bot.play import Scene, scene_of
from bot.settings import BotSettings
from schemas import names
from schemas.feed import MentionReason, Post
from schemas.record import Output

ALICE = Person("acct-alice", "alice", "Alice")
BRUNO = Person("acct-bruno", "bruno", "Bruno")
CHIDI = Person("acct-chidi", "chidi", "Chidi")
QUIZ = Person("acct-quiz-bot", "quizbot", "Quiz Bot", bot=True)


def scenes(bot: BotSettings, run: str) -> Iterator[Scene]:
    """The feed for one run; ``run`` makes its ids different from those of other runs."""
    yield from _thread_with_a_quote(bot, run)
    yield from _two_strangers(bot, run)
    yield from _private_talk(bot, run)
    yield from _bots(bot, run)
    yield _followers_only(bot, run)
    yield _garbage(run)
    yield _after_the_garbage(bot, run)


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
        ("a private talk, its first message", "Hello! Who are you?"),
        ("the same private talk, its second message", "Can you tell me a fun fact about cats?"),
    ):
        event = message_to(bot, ALICE, text, conversation_id=f"{run}:talk-alice")
        yield scene_of(title, to_output(event))


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
    root: Post = post(bot_person(bot), "Ask me about numbers.", conversation_id=f"{run}:quiz")
    text = "What is two plus two?"
    asking = post(CHIDI, text, conversation_id=f"{run}:quiz", above=root)
    event = mention(bot, asking, ancestors=(root,), reason=MentionReason.REPLY)
    return scene_of(title, to_output(event))


def _mention(
    title: str, bot: BotSettings, person: Person, text: str, thread: str, above: tuple[Post, ...]
) -> Scene:
    event = mention_of(bot, person, text, conversation_id=thread, thread=above)
    return scene_of(title, to_output(event))
