"""One run: broker, workers, feed and faults, then the verdict. The flow is told in ``run``."""

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.broker import LocalBroker
from infra.topics import create_topics
from tests.chaos import readers
from tests.chaos.checker import Evidence, Violation, check, counts
from tests.chaos.facts import INPUTS, OUTPUTS, Commit, Place, input_fact, output_fact
from tests.chaos.feed import BOT, Feed
from tests.chaos.fleet import Fleet
from tests.chaos.producing import Feeding

GROUP = "chaos"
PARTITIONS = 6
