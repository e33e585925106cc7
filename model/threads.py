"""What a process that runs a model needs in its environment before torch loads.

OpenMP's workers otherwise spin between two steps and take the cores that Kafka's client and
the event loop need; the libraries' progress bars and telemetry are off.
"""

import os

ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep
    "GOMP_SPINCOUNT": "0",  # the same for GNU OpenMP, which torch's wheels bring
    "KMP_BLOCKTIME": "0",  # and for Intel's
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",  # some bars obey nothing else
}


def thread_counts(threads: int) -> dict[str, str]:
    """Variables for a process whose model uses so many threads: its libraries then start no more,
    which on a large machine takes memory for each core. What is set already stays."""
    wanted = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def configure_environment() -> None:
    """Set what is not set yet. Call it first thing in the process: torch reads it once."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
