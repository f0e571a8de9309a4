"""The list of groups, which comes page by page. Part of `FleetClient`."""

from typing import Final, cast
from urllib.parse import urlencode

from edgefleet.client_http import Api, Json

PAGE: Final = 1_000  # groups of one answer, the most that a server gives


def all_groups(api: Api, project: str | None) -> list[Json]:
    """Groups of one project or all, by project and name."""
    found: list[Json] = []
    only = {"project": project} if project else {}
    while True:
        after = {"after": f"{found[-1]['project']}/{found[-1]['name']}"} if found else {}
        page = cast(list[Json], api.call("GET", f"/groups?{urlencode({**only, **after, 'limit': str(PAGE)})}"))
        if found and page and page[0] == found[0]:
            return found  # a server from before there were pages gives all of them each time
        found += page
        if len(page) < PAGE:
            return found
