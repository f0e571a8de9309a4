"""What a question about something unknown is answered with."""

from edgefleet.errors import InputError


class NotFoundError(InputError):
    """No such release, rollout, device or blob (or none that the asker may see): 404 on the wire."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{what} {name[:80]!r} does not exist; list what there is and try again")
