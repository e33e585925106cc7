"""Two workers that were given the same ``group_instance_id``, as one of them sees it."""

from consumers.group import Membership


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(*places: tuple[float, str]) -> list[float]:
    """When it is told, of assignments (seconds, member id)."""
    membership = Membership(clock := Clock())
    found = []
    for clock.now, member_id in places:
        if membership.has_twin(member_id):
            found.append(clock.now)
    return found


def test_a_member_that_keeps_its_place_has_no_twin() -> None:
    assert told(*((float(second), "a") for second in range(50))) == []


def test_losing_the_place_again_and_again_is_told_now_and_then() -> None:
    assert told(*((2.0 * n, f"member {n}") for n in range(8))) == [6.0, 12.0]


def test_a_place_lost_once_in_a_long_while_is_no_twin() -> None:
    assert told(*((200.0 * n, f"member {n}") for n in range(8))) == []
