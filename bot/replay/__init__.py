"""Replays: decisions that are on the log are made again, and compared with what they were.

The way of one replay, a file each: ``wanted`` (which decisions), ``plan`` (where they stand),
``originals`` (their inputs), ``frozen`` or ``rebuilt`` (once more), ``compare`` (what changed),
``folder`` and ``door`` (kept, published), ``report`` and ``page`` (shown). ``run`` strings them
together. Nothing in here can publish a reply: the one producer is in ``door``, for one topic.
"""
