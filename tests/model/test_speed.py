"""The speed of an engine is what its callers see."""

from model.echo import EchoEngine
from model.engine import Generation, GenerationRequest
from model.speed import speeds


class Counting(EchoEngine):
    """Notes how many requests are in flight at most."""

    now = most = 0

    async def generate(self, request: GenerationRequest) -> Generation:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().generate(request)
        finally:
            self.now -= 1


async def test_each_number_in_flight_is_measured_with_requests_of_its_own() -> None:
    engine = Counting(latency_ms=1, slots=5)
    await engine.start()
    seen = []
    async for speed in speeds(engine, [1, 5], tokens=7, rounds=1):
        seen.append((speed.in_flight, speed.tokens, engine.most))
        engine.most = 0
        assert speed.tokens_per_s > 0
    # The first is warm-up's as well, which fills all slots.
    assert seen == [(1, 7, 5), (5, 35, 5)]
    await engine.stop()
