"""The context of a mention: the thread above it, what stands beside it, and what it quotes.

In: a mention, and what is known. Out: ``ThreadPost`` values in reading order: ancestors root
first, behind each what the bot answered to it, the posts beside the mention whose authors it
names, the quoted post, the mention. Guaranteed: only an unbroken run of ancestors that ends at
the parent, and the root of the thread; from the event where it carries them, from the view where
it does not; each in its newest revision, and nothing that was deleted.

The platform vouches that the asker may see what it put into the event. What comes from the view
alone is shown only where everybody may see it, or where the asker wrote it or was told it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bot.context import Kind, ThreadPost, Why, own_reply, thread_post
from bot.knowledge import Knowledge, ReplyPart
from bot.values import BotIdentity, is_open, narrowest, visibility_of
from schemas.feed import FacetType, MentionCreated, Post, Ref

MAX_ANCESTORS = 100  # that are looked up above what the event carries
MAX_SIBLINGS = 4
OWN_REPLIES_WITHIN = 20  # of the nearest ancestors: to these the bot's own replies are looked up


@dataclass(frozen=True, slots=True)
class _Step:
    """One ancestor. ``fault``: why it is left out; ``vouched``: it came with the event."""

    post: Post
    fault: Why | None
    vouched: bool


def around(data: MentionCreated, bot: BotIdentity, knowledge: Knowledge) -> tuple[ThreadPost, ...]:
    """Everything around a mention, in reading order, consent not yet looked at."""
    run = [_as_of_now(step, data.post, knowledge) for step in _run(data, knowledge)]
    posts = list(_ancestors(run, data.post, bot, knowledge))
    known = {data.post.uri, *(post.ref.uri for post in posts if post.included)}
    posts += _siblings(data.post, known, bot, knowledge)
    posts += _quoted(data, known, bot.id, knowledge)
    posts.append(thread_post(data.post, Kind.ASKING, Why.ASKING, bot.id))
    return tuple(posts)


def _run(data: MentionCreated, knowledge: Knowledge) -> list[_Step]:
    """The ancestors root-most first: those of the event, above them those of the view.

    Walks from the mention upwards; behind the first break of the event's run nothing of it is
    believed, and the view goes on from there.
    """
    steps: list[_Step] = []
    child, known, broken = data.post, {data.post.uri}, False
    for post in reversed(data.ancestors):
        fault = Why.BROKEN_RUN if broken else _fault(post, child, known)
        broken = broken or fault is not None
        steps.append(_Step(post, fault, vouched=True))
        if not broken:
            child = post
            known.add(post.uri)
    # One that says it is complete and has nothing of what its post answers is not believed.
    complete = data.ancestors_complete and (data.ancestors or data.post.parent is None)
    if not complete or broken:
        steps += _from_view(child, known, knowledge)
    return steps[::-1]


def _from_view(child: Post, known: set[str], knowledge: Knowledge) -> Iterator[_Step]:
    """What the view knows above ``child``, nearest first, and the root behind a long way."""
    above = knowledge.ancestors(child, MAX_ANCESTORS)
    top = child
    for post in reversed(above):
        if post.uri in known:
            return
        known.add(post.uri)
        top = post
        yield _Step(post, None, vouched=False)
    if len(above) == MAX_ANCESTORS and top.parent is not None:
        root = knowledge.root(top)
        if root is not None and root.uri not in known:
            yield _Step(root, None, vouched=False)


def _fault(post: Post, child: Post, known: set[str]) -> Why | None:
    """Why ``post`` can't be the parent of ``child``; refs that the platform left out may be."""
    if post.uri in known:
        return Why.CYCLE
    if post.conversation_id != child.conversation_id:
        return Why.CONVERSATION
    is_root = child.parent is None and child.root is not None and child.root.uri == child.uri
    if is_root or (child.parent is not None and child.parent.uri != post.uri):
        return Why.BROKEN_RUN
    return None


def _as_of_now(step: _Step, asking: Post, knowledge: Knowledge) -> _Step:
    """The step in the newest revision of its post, left out where it may not be shown."""
    if step.fault is not None:
        return step
    post, fault = step.post, None
    if step.vouched:
        post, fault = _newest(post, knowledge)
    elif not _is_for(post, asking):
        fault = Why.VISIBILITY
    if fault is None and visibility_of(post) is None:
        fault = Why.VISIBILITY
    return _Step(post, fault, step.vouched)


def _newest(post: Post, knowledge: Knowledge) -> tuple[Post, Why | None]:
    """What the event carried, as it reads now. An edit that made it narrower was not vouched
    for."""
    news = knowledge.changed(post)
    if news is None:
        return post, None
    now = news.post
    if news.deleted or not isinstance(now, Post):
        return post, Why.DELETED
    before, after = visibility_of(post), visibility_of(now)
    if before is None or after is None or narrowest(before, after) != before:
        return now, Why.VISIBILITY
    return now, None


def _is_for(post: Post, asking: Post) -> bool:
    """Whether the asker may see a post that only the view knows. With a visibility that nobody
    knows it can't be told who may see the answer."""
    visibility = visibility_of(post)
    if visibility is None:
        return False
    return is_open(visibility) or post.author.id == asking.author.id


def _ancestors(
    run: Sequence[_Step], asking: Post, bot: BotIdentity, knowledge: Knowledge
) -> Iterator[ThreadPost]:
    shown = [i for i, step in enumerate(run) if step.fault is None]
    oldest = shown[0] if shown else None
    replies = knowledge.replies_to_each(_answered_beside(run, asking, bot.id))
    for i, step in enumerate(run):
        why = step.fault or (Why.ROOT if i == oldest else Why.ANCESTOR)
        yield thread_post(step.post, Kind.ANCESTOR, why, bot.id, included=step.fault is None)
        if step.fault is None and step.post.uri in replies:
            for part in replies[step.post.uri].standing:
                if _was_told(part, step.post, asking):
                    yield own_reply(ThreadPost, part, bot.account)


def _answered_beside(run: Sequence[_Step], asking: Post, bot_id: str) -> list[str]:
    """The nearest posts whose replies of the bot are to be shown: those of others, unless the
    run goes on with the reply as the platform shows it."""
    below = [*(step.post for step in run[1:]), asking]
    near = list(zip(run, below, strict=False))[-OWN_REPLIES_WITHIN:]
    return [
        step.post.uri
        for step, after in near
        if step.fault is None and bot_id not in (step.post.author.id, after.author.id)
    ]


def _was_told(part: ReplyPart, post: Post, asking: Post) -> bool:
    return is_open(part.visibility) or post.author.id == asking.author.id


def _siblings(
    asking: Post, known: set[str], bot: BotIdentity, knowledge: Knowledge
) -> Iterator[ThreadPost]:
    """The latest of each account that the asker names and that answered the same parent."""
    if asking.parent is None:
        return
    named = [
        facet.account_id
        for facet in asking.facets
        if facet.type == FacetType.MENTION and facet.account_id not in (bot.id, asking.author.id)
    ]
    authors = [account for account in dict.fromkeys(named) if account is not None][:MAX_SIBLINGS]
    if not authors:
        return
    for post in knowledge.siblings(asking, authors, MAX_SIBLINGS):
        if post.uri not in known:
            why = Why.SIBLING if _is_for(post, asking) else Why.VISIBILITY
            included = why is Why.SIBLING
            yield thread_post(post, Kind.SIBLING, why, bot.id, included=included)


def _quoted(
    data: MentionCreated, known: set[str], bot_id: str, knowledge: Knowledge
) -> Iterator[ThreadPost]:
    if data.quoted is not None:
        post, why = quoted_now(data.quoted, data.post.quote, known, knowledge)
    else:
        found = knowledge.quoted(data.post)
        if found is None:
            return
        post, why = found, Why.QUOTED if _is_for(found, data.post) else Why.VISIBILITY
        if why is Why.QUOTED and found.uri in known:
            why = Why.REPEATED
    yield thread_post(post, Kind.QUOTED, why, bot_id, included=why is Why.QUOTED)


def quoted_now(
    post: Post, quote: Ref | None, known: set[str], knowledge: Knowledge
) -> tuple[Post, Why]:
    """A quoted post that came with the event, as it reads now, and why it is there or not."""
    if quote is not None and quote.uri != post.uri:
        return post, Why.WRONG_QUOTE
    if post.uri in known:
        return post, Why.REPEATED
    post, fault = _newest(post, knowledge)
    if fault is None and visibility_of(post) is None:
        fault = Why.VISIBILITY
    return post, fault or Why.QUOTED
