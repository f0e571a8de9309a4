"""kill -9 in the middle of a rollout, with real processes: both come back, and the rollout ends well."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from examples.digits import observe
from examples.digits.fleet import HERE, Fleet
from examples.digits.story import wait_for

DEVICES = 6


def rollout_state(fleet: Fleet, rollout_id: str) -> dict[str, Any]:
    return dict(fleet.client.rollout(rollout_id))


def begun(view: dict[str, Any]) -> list[str]:
    return [m["device_id"] for wave in view["waves"] for m in wave["members"] if m["progress"] not in {"not-begun", "ok"}]


@pytest.mark.conversions
@pytest.mark.broker
@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.timeout(900)  # it may be the first that asks for the bundle, which is trained and converted for it
def test_a_rollout_survives_kill_9_of_an_agent_and_of_the_server(tmp_path: Path, digits_bundle: Path) -> None:
    fleet = Fleet(tmp_path, DEVICES, seed=5)
    try:
        fleet.open_broker("mosquitto")
        fleet.open()
        wait_for("every agent", lambda: observe.all_connected(fleet) or None, 120, fleet.check)
        release = fleet.client.push(digits_bundle, "1", "")
        policy = tomllib.loads((HERE / "policy.toml").read_text())
        rollout = fleet.client.create_rollout(release["release_id"], policy, {})
        rollout_id = rollout["rollout_id"]
        fleet.client.start_rollout(rollout_id, int(rollout["version"]))
        victim = wait_for(
            "a device in the middle of its update", lambda: next(iter(begun(rollout_state(fleet, rollout_id))), None), 120, fleet.check
        )

        fleet.agents[victim].kill()
        assert fleet.server is not None
        fleet.server.kill()
        fleet.server.start()
        fleet.agents[victim].start()

        def ended() -> dict[str, Any] | None:
            try:
                view = rollout_state(fleet, rollout_id)
            except Exception:  # the server is still coming up; the deadline below is the judge
                return None
            assert view["state"] in {"running", "completed", "soaking"}, view["sentence"]
            return view if view["state"] == "completed" else None

        view = wait_for("the end of the rollout", ended, 300, fleet.check)
        members = {m["device_id"]: m["progress"] for wave in view["waves"] for m in wave["members"]}
        assert members == dict.fromkeys(fleet.device_ids, "ok")
        assert observe.runs_everywhere(fleet, release["bundle_digest"])
    finally:
        fleet.close()
