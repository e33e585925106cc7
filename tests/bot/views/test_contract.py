"""The bot's views are held to what every view is held to."""

import random
from collections.abc import Callable

import pytest

from consumers.views.view import View
from schemas.control import ModerationCommanded
from schemas.feed import AccountChanged, MessageCreated, MessageDeleted, PostCreated, Visibility
from tests.bot.make import BOB, mention, message, post, run_of
from tests.bot.views.logs import VIEWS, Log, deleted, edited
from tests.bot.views.test_replies import corrected, decision, reply, retracted
from tests.consumers.views.contract import check


def everything() -> Log:
    """Records that show all that the views know."""
    log = Log()
    above = run_of(post("at://p/0", "root", author=BOB), post("at://p/1", "one"))
    quoted = post("at://q", "quoted", conversation_id="other")
    log.add(PostCreated(post=above[0]))
    log.add(mention(ancestors=above, parent=above[-1].ref, quoted=quoted, quote=quoted.ref))
    log.add(edited(above[0], "root anew"))
    log.add(MessageCreated(message=message("at://m/1", "secret")))
    log.add(reply("reply-1", visibility=Visibility.DIRECT, uri="at://m/1"), private=True)
    log.add(decision("d1", uri="at://m/1"), private=True)
    log.add(MessageCreated(message=message("at://m/2", "/forget")))
    log.add(edited(message("at://m/1", "secret"), "secret still"))
    log.add(MessageCreated(message=message("at://m/3", "hi", quoted=quoted)))
    log.add(deleted("at://p/1"))
    log.add(deleted("at://q", talk="other"))
    log.add(mention("@twite again", ancestors=above))
    log.add(deleted("at://m/3", MessageDeleted))
    log.add(reply("reply-2"))
    log.add(corrected("reply-2"))
    log.add(retracted("reply-1"), private=True)
    log.add(decision("d2"))
    log.add(AccountChanged(account_id="acc-1", opted_out=True))
    log.add(ModerationCommanded(command="stop", subject="mentions", reason="x", moderator="m"))
    return log


@pytest.mark.parametrize("make", VIEWS)
@pytest.mark.parametrize("seed", range(5))
def test_the_bots_views_keep_the_contract(make: Callable[[], View], seed: int) -> None:
    view = make()
    records = [record for record in everything().records if record.topic in view.topics]
    check(view, records, random.Random(seed))
