"""What the pages and the API show of a release's place in an outside registry."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class RegistryNote:
    """A release in MLflow's model registry.

    Attributes:
        name: The registered model, "" when this release is not the champion there.
        version: Its version there; the alias `champion` points to it.
        registered_at: When the alias was moved to it.
        trouble: Why the release, which is in service, is not the champion there; "" without trouble.
        tried_at: When that was tried last.
    """

    name: str
    version: str
    registered_at: datetime | None
    trouble: str
    tried_at: datetime | None
