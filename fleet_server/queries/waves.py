"""The waves of a rollout with a word for each device. Of a rollout that let go of its devices, what was seen last is what is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fleet_server.read_models import EventView, Progress, WaveMember, WaveView
from fleet_server.rollout import ActionKind, DeviceFacts, Facts, Rollout, RolloutState, progress
from fleet_server.rollout.on_abort import keeps

WaveState = Literal["later", "next", "open", "promoted", "halted"]
_HALTED: Final = frozenset(
    {
        RolloutState.PAUSED,
        RolloutState.ABORTED,
        RolloutState.ROLLING_BACK,
        RolloutState.ROLLED_BACK,
        RolloutState.PAUSED_RB,
        RolloutState.SUPERSEDED,
        RolloutState.DISCARDED,
    }
)


@dataclass(frozen=True)
class Judged:
    """One word and one sentence for a device."""

    progress: Progress
    reason: str


def judge(rollout: Rollout, known: Facts, owned: set[str], now: datetime) -> dict[str, Judged]:
    """The word for every device of every wave."""
    judged: dict[str, Judged] = {}
    for number, wave in enumerate(rollout.waves, start=1):
        for device_id in wave:
            device = known.devices.get(device_id)
            if number > rollout.wave:
                judged[device_id] = Judged("not-begun", "")
            elif device is None:
                judged[device_id] = Judged("not-begun", "its facts cannot be read")
            elif device_id in owned or device.removed:
                judged[device_id] = Judged(*progress(device, rollout.bundle_digest, rollout.policy, now))
            else:
                judged[device_id] = _at_the_end(rollout, device, now, in_open_wave=number == rollout.wave)
    return judged


def wave_views(rollout: Rollout, judged: Mapping[str, Judged], known: Facts, log: Sequence[EventView]) -> list[WaveView]:
    """The waves; `log` gives the reasons of promotions, newest first."""
    promotions = [event.detail for event in reversed(log) if event.action == ActionKind.PROMOTE.value]
    views = []
    for number, wave in enumerate(rollout.waves, start=1):
        state = wave_state(rollout, number)
        reason = promotions[number - 1] if state == "promoted" and number <= len(promotions) else ""
        views.append(
            WaveView(
                number=number,
                state=state,
                members=[_member(device_id, judged[device_id], known) for device_id in wave],
                opened_at=rollout.opened_at[number - 1] if number <= len(rollout.opened_at) else None,
                promoted_at=rollout.promoted_at[number - 1] if number <= len(rollout.promoted_at) else None,
                reason=reason or (rollout.last_reason if state in ("open", "halted") else ""),
            )
        )
    return views


def _member(device_id: str, one: Judged, known: Facts) -> WaveMember:
    device = known.devices.get(device_id)
    return WaveMember(device_id=device_id, progress=one.progress, reason=one.reason, site=device.site if device is not None else "")


def wave_state(rollout: Rollout, number: int) -> WaveState:
    """Where a wave stands."""
    if number <= len(rollout.promoted_at):
        return "promoted"
    if number <= rollout.wave:
        return "halted" if rollout.state in _HALTED else "open"
    ended = rollout.state in _HALTED and rollout.state is not RolloutState.PAUSED
    return "next" if number == rollout.wave + 1 and not ended else "later"


def _at_the_end(rollout: Rollout, device: DeviceFacts, now: datetime, *, in_open_wave: bool) -> Judged:
    if device.failed_at is not None:
        return Judged("failed", device.failure or "failed")
    if device.began_at is None and device.committed_at is None:
        return Judged("not-begun", "had not begun when the rollout ended")
    ok = progress(device, rollout.bundle_digest, rollout.policy, now)[0] == "ok"
    attested = device.committed_at is not None and device.attested_at is not None
    return at_the_end(rollout, ok=ok, in_open_wave=in_open_wave, attested=attested)


def at_the_end(rollout: Rollout, *, ok: bool, in_open_wave: bool, attested: bool) -> Judged:
    """The word for a device that began and did not fail, of a rollout that let go of it.

    Args:
        rollout: It is over, or goes back.
        ok: The device had proved itself.
        in_open_wave: It belongs to the wave that was opened last.
        attested: It committed and attested, and may not have soaked.
    """
    back = rollout.state is RolloutState.ROLLED_BACK
    if rollout.state is RolloutState.ABORTED:
        back = not keeps(rollout.policy.on_abort, ok=ok, begun=True, in_open_wave=in_open_wave)
    if back:
        return Judged("not-begun", "went back to what it ran before")
    return Judged("ok", "committed and attested") if attested else Judged("pending", "had begun when the rollout ended")
