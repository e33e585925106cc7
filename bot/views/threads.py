"""Threads: the tree of public conversations, read from the view of conversations.

In: a post. Out: what stands above, beside and behind it, newest revisions only, nothing that
was deleted. Everything comes from the table of posts, where no private message ever stands.
"""

import sqlite3
from collections.abc import Collection
from typing import cast

from pydantic_core import from_json

from bot.values import ms_of
from bot.views.written import Row, asked, carried, newest, parse, run_above, whole
from schemas.feed import MentionCreated, MentionReason, Post

_BESIDE = (
    "SELECT DISTINCT uri FROM posts"
    " WHERE parent = ? AND author = ? AND created_ms <= ? ORDER BY created_ms DESC LIMIT 8"
)


def ancestors(db: sqlite3.Connection, post: Post, limit: int) -> tuple[Post, ...]:
    """Root-most first, the last is the parent; the newest ``limit`` of the unbroken run."""
    return tuple(parse(Post, row) for row in reversed(_above(db, post, limit)))


def root(db: sqlite3.Connection, post: Post) -> Post | None:
    """The root of the thread, where ``post`` names it and it is of the same conversation."""
    if post.root is None or post.root.uri == post.uri:
        return None
    row = newest(db, Post, post.root.uri)
    if row is None or row.conversation != post.conversation_id or row.parent is not None:
        return None
    return parse(Post, row)


def quoted(db: sqlite3.Connection, quote_uri: str) -> Post | None:
    """The newest of a post of this partition; a mere copy is not enough, as nobody would tell
    this partition of its deletion."""
    row = newest(db, Post, quote_uri)
    return parse(Post, row) if row is not None and row.told else None


def siblings(
    db: sqlite3.Connection, post: Post, authors: Collection[str], limit: int
) -> tuple[Post, ...]:
    """The latest answer to the same parent of each of these authors, from before ``post``."""
    if post.parent is None:
        return ()
    before = ms_of(post.created_at)
    found = []
    for author in list(authors)[:limit]:
        for (uri,) in db.execute(_BESIDE, (post.parent.uri, author, before)).fetchall():
            row = newest(db, Post, uri) if uri != post.uri else None
            if row is not None and _stands_beside(row, post, author):
                found.append(parse(Post, row))
                break
    return tuple(sorted(found, key=lambda other: (other.created_at, other.uri)))


def question(
    db: sqlite3.Connection, uri: str, conversation: str | None = None
) -> MentionCreated | None:
    """The latest mention that is this post, in its newest revision; what came with it is as the
    event had it, less what was deleted."""
    found = asked(db, Post, uri, conversation)
    if found is None:
        return None
    row, event, quote = found[0], from_json(found[1]), found[2]
    above = [carried(db, ref, row.conversation) for ref in event["ancestors"]]
    # Behind a gap nothing would be believed: what is left is the run that ends at the parent.
    kept = above[max((i + 1 for i, one in enumerate(above) if one is None), default=0) :]
    return MentionCreated(
        post=parse(Post, row),
        mentioned_account_id=event["mentioned_account_id"],
        reason=MentionReason(event["reason"]),
        ancestors=tuple(one for one in kept if one is not None),
        ancestors_complete=event["ancestors_complete"] and len(kept) == len(above),
        quoted=whole(quote) if quote is not None else None,
    )


def _above(db: sqlite3.Connection, post: Post, limit: int) -> list[Row]:
    """The parent, its parent, and so on, until one is missing, elsewhere or met before."""
    if post.parent is None:
        return []
    run: list[Row] = []
    met, above = {post.uri}, cast("str | None", post.parent.uri)
    known = run_above(db, post.parent.uri, limit)
    while above is not None and above not in met and len(run) < limit:
        row = known[above] if above in known else newest(db, Post, above)
        if row is None or row.conversation != post.conversation_id:
            break
        met.add(above)
        run.append(row)
        above = row.parent
    return run


def _stands_beside(row: Row, post: Post, author: str) -> bool:
    parent = post.parent.uri if post.parent else None
    return (row.conversation, row.parent, row.author) == (post.conversation_id, parent, author)
