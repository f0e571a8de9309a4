"""Give a device other labels: what selects it from now on. A rollout that has it goes on with what the labels said when it was planned.

Wave, stratum and site of a member are fixed when it is selected: evidence keeps the site whose controls it is compared with. Who comes into
the selection of an open rollout joins by the salted hash; who leaves it before he was asked is dropped; later rollouts see the new labels.
"""

from collections.abc import Callable, Collection, Mapping

from edgefleet.errors import InputError
from edgefleet.identifiers import check_id
from fleet_server import audit, enlisting
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.known_devices import hold
from fleet_server.labels import check_labels, described
from fleet_server.reasons import reason_of
from fleet_server.services import Services
from fleet_server.store import changes, devices


def set_labels(
    services: Services, device_id: str, *, put: Mapping[str, str], drop: Collection[str] = (), reason: str, actor: Actor
) -> dict[str, str]:
    """Set and drop single labels of a device; the others stay. Returns all its labels.

    Args:
        services: The server's parts.
        device_id: A device of the fleet.
        put: Label -> its value from now on.
        drop: Labels that it has and shall not have.
        reason: For the log.
        actor: Who does it.

    Raises:
        InputError: A label that cannot be one, one that is both set and dropped, one to drop that it does not have, or nothing to do.
        NotFoundError: There is no such device.
        ConflictError: It was removed.
    """
    both = sorted({*put} & {*drop})
    if both or not (put or drop):
        named = f"label {both[0]!r} is to be set and to be dropped" if both else "no label is named"
        raise InputError(f"{named}; nothing was changed")
    check_labels(put)

    def changed(before: Mapping[str, str]) -> dict[str, str]:
        for key in drop:
            if check_id(key, "label") not in before:
                listed = ", ".join(sorted(before)) or "none"
                raise InputError(f"device {device_id!r} has no label {key!r}; its labels: {listed}. Nothing was changed.")
        return {key: value for key, value in before.items() if key not in drop} | {**put}

    return _relabel(services, device_id, changed, reason, actor)


def replace_labels(
    services: Services, device_id: str, *, labels: Mapping[str, str], were: Mapping[str, str] | None = None, reason: str, actor: Actor
) -> dict[str, str]:
    """Replace all labels of a device. Returns them.

    Args:
        services: The server's parts.
        device_id: A device of the fleet.
        labels: All that it has from now on.
        were: The labels that the person saw; None: whatever they are now.
        reason: For the log.
        actor: Who does it.

    Raises:
        InputError: A label that cannot be one.
        NotFoundError: There is no such device.
        ConflictError: It was removed, or its labels are not those any more that the person saw.
    """

    def changed(before: Mapping[str, str]) -> dict[str, str]:
        if were is not None and dict(were) != dict(before):
            raise ConflictError(f"device {device_id!r} has other labels by now: {_said(before)}. Nothing was changed; look again.")
        return dict(labels)

    return _relabel(services, device_id, changed, reason, actor)


def _relabel(
    services: Services, device_id: str, changed: Callable[[Mapping[str, str]], dict[str, str]], reason: str, actor: Actor
) -> dict[str, str]:
    words = reason_of(reason)
    now, at = services.clock(), services.now_us()
    with services.db.write() as connection:
        project = hold(connection, device_id)
        before = devices.labels_of(connection, [device_id]).get(device_id, {})
        after = check_labels(changed(before))
        if after == before:
            return after
        devices.set_labels(connection, device_id, after)
        enlisting.follow(connection, project, device_id, now)
        detail = f"{_said(before)} became {_said(after)}: {words}"
        audit.record(connection, at, actor=actor.name, action="relabel", subject=("device", device_id), detail=detail)
        changes.touch(connection, at, "devices", "overview", "rollouts", f"device:{device_id}")
    services.wake.set()
    return after


def _said(labels: Mapping[str, str]) -> str:
    return described(labels) or "no label"
