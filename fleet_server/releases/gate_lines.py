"""What is kept of the gates that travelled with a bundle."""

import msgspec


class GateLine(msgspec.Struct):
    """One gate; other fields of the document stay in the file."""

    gate: str
    verdict: str
    sentence: str = ""
    variant: str | None = None
