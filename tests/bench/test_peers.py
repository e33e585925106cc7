"""What P2 compares with: pinned, whole, and never missing in silence. Nothing is installed here."""

import ast
from pathlib import Path

import pytest

from tests.bench import p2, page, result, systems
from tests.bench.peers.install import HERE, PeerMissing
from tests.bench.result import Result
from tests.bench.setting import Setting
from tests.bench.systems import PEERS, TWITE

KINDS = sorted({peer.kind for peer in PEERS})


def rates(name: str, us: float) -> dict[str, object]:
    figures = {"replies_per_s": 1000.0, "ratio": 0.8, "processor_us_per_reply": us}
    return {"round": 1, "system": name, "slots": p2.FEW, **figures}


def made(missing: dict[str, str]) -> Result:
    samples = [rates(TWITE.name, 100.0), {**rates(TWITE.name, 90.0), "slots": p2.MANY}]
    samples += [rates(peer.name, 300.0) for peer in PEERS if peer.name not in missing]
    clean = {"inputs": 10, "doubles": 0, "lost": 0, "misordered": 0}
    return p2._result(p2.QUICK, samples, {TWITE.name: clean}, missing)


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_has_pinned_requirements_and_a_program_of_its_own(kind: str) -> None:
    lines = (HERE / f"requirements-{kind}.txt").read_text().splitlines()
    assert lines
    assert all("==" in line for line in lines)
    tree = ast.parse((HERE / f"{kind}_app.py").read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert not imported & {"bot", "consumers", "infra", "model", "schemas", "tests"}


def test_a_peer_that_cannot_be_installed_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(system: systems.System) -> None:
        if system.kind == "quix":
            raise PeerMissing("pip failed: no such wheel")

    said: list[str] = []
    monkeypatch.setattr(p2, "install", refuse)
    missing = p2._install(Setting("nowhere:1", True, tmp_path, said.append))
    assert missing == {"Quix Streams 3.28": "pip failed: no such wheel"}
    assert "no such wheel" in said[0]
    result.save(made(missing), tmp_path)
    text = page.markdown(result.load_all(tmp_path))
    assert "Quix Streams 3.28 could not be measured: pip failed: no such wheel" in text


def test_the_best_peer_is_one_that_keeps_order() -> None:
    found = made({})
    assert found.checks[0].found == pytest.approx(100 / 300)
    assert [check.met for check in found.checks] == [True, True, True]


def test_without_any_peer_the_comparison_is_missed_not_met() -> None:
    everybody = {peer.name: "no network" for peer in PEERS}
    found = made(everybody)
    assert found.checks[0].found is None
    assert not found.checks[0].met
