"""Benches of the runtime: what ``consumers/`` achieves, as ratios taken within one run.

    python -m tests.bench            all of them, the long forms
    python -m tests.bench P1 P5 --quick

In come ids; out go ``docs/benchmarks/<id>.json``, a table, and ``docs/benchmarks.md`` made
from the JSON files. A bench is a file here with one function ``run(setting) -> Result``.
"""
