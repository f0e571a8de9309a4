"""kill -9 at every disk operation of an update, with real files and real models: the old model or the new one, never less, never a mix."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgefleet.bundle import Bundle
from tests.faults.update_victim import update
from tests.unit.device_agent.agent_world import QUICK, Enrolled, blob_server, enroll, make_bundle, weights

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Cuts:
    """What happened at each cut."""

    old: Bundle
    new: Bundle
    outcomes: list[dict[str, Any]]


def cut_everywhere(folder: Path, new_weights_seed: int, sign: int) -> Cuts:
    old = make_bundle(folder / "old", weights(1))
    new = make_bundle(folder / "new", sign * weights(1) * 1.01 + 0.001 * weights(new_weights_seed))
    with blob_server() as blobs:
        blobs.add(old)
        blobs.add(new)
        enrolled: Enrolled = enroll(folder / "base", blobs.url)
        first = update(enrolled.folder, enrolled.desired(old.digest, QUICK_ALONE), None, lambda _: None)
        assert first["running"] == old.digest, first
        wanted = folder / "desired.bin"
        wanted.write_bytes(enrolled.desired(new.digest, QUICK))
        command = [sys.executable, "-m", "tests.faults.update_victim", str(enrolled.folder), str(folder / "work"), str(wanted)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return Cuts(old, new, [json.loads(line) for line in done.stdout.splitlines()])


# The first model has no running one beside it that would answer rows, so its trial needs none.
QUICK_ALONE = type(QUICK)(soak_s=0.0, soak_rows=0, timeout_s=30.0, agreement_rows=10, min_agreement=0.9)


@pytest.mark.slow
def test_a_kill_at_any_operation_leaves_the_old_or_the_new_model_and_the_update_ends_well(quick_folder: Path) -> None:
    cuts = cut_everywhere(quick_folder, 5, 1)

    assert len(cuts.outcomes) > 40
    assert cuts.outcomes[-1]["through"]
    assert {outcome.get("at_start") for outcome in cuts.outcomes} == {cuts.old.digest, cuts.new.digest}
    for outcome in cuts.outcomes:
        assert outcome.get("at_start") in {cuts.old.digest, cuts.new.digest}, outcome
        if f"committed {cuts.new.digest}" in outcome["told"]:
            assert outcome["at_start"] == cuts.new.digest, outcome
        assert (outcome["state"], outcome["running"]) == ("committed", cuts.new.digest), outcome
        assert outcome["leftovers"] == [], outcome


@pytest.mark.conversions
@pytest.mark.slow
def test_a_kill_at_any_operation_never_makes_a_disagreeing_model_run(quick_folder: Path) -> None:
    cuts = cut_everywhere(quick_folder, 5, -1)

    assert cuts.outcomes[-1]["through"]
    for outcome in cuts.outcomes:
        assert outcome.get("at_start") == cuts.old.digest, outcome
        assert outcome["running"] == cuts.old.digest, outcome
        assert outcome["state"] in {"rolled-back", "quarantined"}, outcome
