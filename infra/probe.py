"""Does a broker answer? One metadata request, no matter what became of the last one."""

import asyncio
import logging

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

_PATIENCE = 5.0  # seconds for one try


async def answers(bootstrap_servers: str) -> bool:
    """Whether a broker at the first of these addresses tells its cluster's brokers."""
    host, _, port = bootstrap_servers.split(",")[0].rpartition(":")
    try:
        # First the bare port, since the client logs an error for each refused connection.
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _PATIENCE)
        writer.close()
    except (OSError, TimeoutError):
        return False
    return await _metadata(bootstrap_servers)


async def _metadata(bootstrap_servers: str) -> bool:
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=3000)
    logger = logging.getLogger("aiokafka")
    level, logger.level = logger.level, logging.CRITICAL
    try:
        await asyncio.wait_for(client.bootstrap(), _PATIENCE)
        return bool(client.cluster.brokers())
    except (OSError, TimeoutError, KafkaError):
        return False
    finally:
        logger.setLevel(level)
        await client.close()
