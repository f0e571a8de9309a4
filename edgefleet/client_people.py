"""Calls about people and their tokens; needs an admin's token. Part of `FleetClient`."""

from typing import cast
from urllib.parse import quote

from edgefleet.client_http import Api, Json


class People:
    """Who may look, steer and approve."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def all(self) -> list[Json]:
        """Everybody who has a valid token."""
        return cast(list[Json], self._api.call("GET", "/people"))

    def add(self, name: str, role: str, reason: str, days: float = 365.0) -> Json:
        """Add a person; the answer holds the token, this once.

        Args:
            name: Identifier; by it people are told apart.
            role: viewer | operator | admin.
            reason: Stands in the log.
            days: Until the token expires.
        """
        return cast(Json, self._api.call("POST", "/people", {"name": name, "role": role, "reason": reason, "days": days}))

    def remove(self, name: str, reason: str) -> Json:
        """End a person's token and sessions at once."""
        return cast(Json, self._api.call("POST", f"/people/{quote(name, safe='')}/remove", {"reason": reason}))
