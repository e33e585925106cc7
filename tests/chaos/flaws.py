"""Planted flaws."""


def install(name: str) -> None:
    if name:
        raise SystemExit(f"no such flaw: {name}")
