"""What a project has of what selections name; each question goes to the database once, so that many selections are looked at quickly."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from fleet_server.store import selecting


class Known:
    """Labels, values and devices of one project, in one snapshot, as far as they were asked for.

    It keeps what it was told, so it must not outlive its transaction.
    """

    def __init__(self, connection: sa.Connection, project: str) -> None:
        self.connection, self.project = connection, project
        self._has_devices: bool | None = None
        self._keys: list[str] | None = None
        self._has_label: dict[str, bool] = {}
        self._others: dict[str, list[str]] = {}
        self._values: dict[tuple[str, str], bool] = {}
        self._ids: dict[str, bool | None] = {}

    def has_devices(self) -> bool:
        """Whether the project has a device."""
        if self._has_devices is None:
            self._has_devices = selecting.has_devices(self.connection, self.project)
        return self._has_devices

    def keys(self) -> list[str]:
        """Labels that devices of the project have, in order."""
        if self._keys is None:
            self._keys = selecting.keys(self.connection, self.project)
        return self._keys

    def has_label(self, key: str) -> bool:
        """Whether a device of the project has the label; once all its labels are known, the database is not asked."""
        if self._keys is not None:
            return key in self._keys
        if key not in self._has_label:
            self._has_label[key] = selecting.has_label(self.connection, self.project, key)
        return self._has_label[key]

    def values(self, key: str) -> list[str]:
        """Values that a label has in the project, in order."""
        if key not in self._others:
            self._others[key] = selecting.values(self.connection, self.project, key)
        return self._others[key]

    def values_among(self, key: str, among: Iterable[str]) -> set[str]:
        """Those of the values that the label of a device of the project has."""
        wanted = set(among)
        missing = {value for value in wanted if (key, value) not in self._values}
        if missing:
            found = selecting.known_values(self.connection, self.project, key, missing)
            self.learn({(key, value): value in found for value in missing})
        return {value for value in wanted if self._values[key, value]}

    def ids(self, device_ids: Iterable[str]) -> dict[str, bool]:
        """Those of the devices that are of the project or were before they were removed -> whether they are."""
        wanted = set(device_ids)
        missing = wanted.difference(self._ids)
        if missing:
            found = selecting.known_ids(self.connection, self.project, missing)
            self._ids |= {one: found.get(one) for one in missing}
        return {one: here for one in wanted if (here := self._ids[one]) is not None}

    def learn(self, values: Mapping[tuple[str, str], bool]) -> None:
        """Take over what somebody else has asked: (label, value) -> whether a device has it."""
        self._values |= values
        self._has_label |= {key: True for (key, _), has in values.items() if has}
