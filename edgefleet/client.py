"""A small client of the fleet server's API, for the command line and for scripts. Needs the standard library only.

Answers are plain dicts and lists as the API documents them. A refusal becomes the error of the one who must act, with the server's words.
"""

import json
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

from edgefleet.bundle import MANIFEST_NAME, Bundle
from edgefleet.client_groups import all_groups
from edgefleet.client_http import TIMEOUT_S, Api, Json, ServerRefusedError, token_from_environment
from edgefleet.client_people import People
from edgefleet.errors import ConfigError
from edgefleet.files import write_durably
from edgefleet.graphs import check_bundle, check_declared
from edgefleet.manifest import MAX_MANIFEST_BYTES
from edgefleet.signing import SigningKey

__all__ = ["FleetClient", "Json", "ServerRefusedError", "token_from_environment"]

# Labels that a device must have, or an expression (docs/selections.md).
Selection = dict[str, str] | str

IDENTITY_NAME: Final = "identity.json"
KEY_NAME: Final = "device.key"
IDENTITY_VERSION: Final = 1


class FleetClient:
    """One server, one token.

    Args:
        url: http://HOST:PORT or https://...
        token: Bearer token, None for what needs none.
        timeout_s: Of one call.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._api = Api(url, token, timeout_s)
        self.people = People(self._api)
        self.url = self._api.url

    @classmethod
    def of_data_dir(cls, data_dir: Path) -> "FleetClient":
        """A client of the server that runs over this data folder here, with its admin token.

        Raises:
            ConfigError: No server runs there, or the files cannot be read.
        """
        try:
            running = json.loads((data_dir / "server.json").read_bytes())
            return cls(str(running["url"]), (data_dir / "admin.token").read_text(encoding="ascii").strip())
        except (OSError, ValueError, KeyError) as err:
            raise ConfigError(f"{data_dir}: no running server: {err}; start it with `edgefleet serve --data {data_dir}`") from err

    def health(self) -> Json:
        """Whether the server answers."""
        return cast(Json, self._api.call("GET", "/healthz"))

    def enroll(self, device_id: str, project: str, public_key: str, labels: dict[str, str] | None = None) -> Json:
        """Let a device in; the answer holds its token and broker password, once."""
        body = {"device_id": device_id, "project": project, "public_key": public_key, "labels": labels or {}}
        return cast(Json, self._api.call("POST", "/devices", body))

    def enroll_into(self, folder: Path, device_id: str, labels: dict[str, str] | None = None, *, project: str) -> Json:
        """Make a device's key in `folder`, enrol it, and write identity.json there; the answer holds no secret.

        Raises:
            ConfigError: The folder holds an identity already.
        """
        path = folder / IDENTITY_NAME
        if path.exists():
            raise ConfigError(f"{path} exists: this folder belongs to an enrolled device; choose another folder")
        key = SigningKey.load_or_create(folder / KEY_NAME)
        answer = self.enroll(device_id, project, key.public.hex, labels)
        identity = {"format_version": IDENTITY_VERSION, "labels": labels or {}, "server_url": self.url} | answer
        write_durably(path, (json.dumps(identity, indent=1) + "\n").encode(), mode=0o600)
        return {"device_id": device_id, "project": project, "labels": labels or {}, "dir": str(folder), "fleet": answer["fleet"]}

    def push(self, bundle_dir: Path | str, version: str, note: str = "") -> Json:
        """Upload the files of a bundle that the server does not have, then make it a release.

        Raises:
            ArtifactError: The bundle on disk is damaged, or a graph of it holds an operator that no device is given.
        """
        bundle = Bundle.open(bundle_dir)
        check_declared(bundle.manifest)
        check_bundle(bundle)
        for name, entry in bundle.manifest.files.items():
            if not self._has_blob(entry.sha256):
                self._api.call("PUT", f"/blobs/{entry.sha256}", content=bundle.read(name))
        with (Path(bundle_dir) / MANIFEST_NAME).open("rb") as stream:
            manifest = stream.read(MAX_MANIFEST_BYTES)
        body = {"project": bundle.manifest.project, "version": version, "manifest": manifest.decode(), "note": note}
        return cast(Json, self._api.call("POST", "/releases", body))

    def plan_rollout(
        self, release_id: str, policy: Json | None = None, selection: Selection | None = None, *, devices: bool = False
    ) -> Json:
        """What a rollout would do; nothing is changed.

        Args:
            release_id: What would be rolled out.
            policy: None: the measured defaults for a fleet of that size.
            selection: Labels that a device must have, or an expression; None: every device of the project.
            devices: Whether the answer names the devices of each wave.
        """
        body = {"release_id": release_id, "policy": policy, "selection": selection or {}, "devices": devices}
        return cast(Json, self._api.call("POST", "/rollouts/plan", body))

    def create_rollout(
        self, release_id: str, policy: Json | None = None, selection: Selection | None = None, fixes: str = "", plan: str = ""
    ) -> Json:
        """Make a rollout that waits for its start; `fixes`: the rollout that it mends; `plan`: digest that was looked at, else refused."""
        asked = {"fixes": fixes, "plan": plan}
        body: Json = {"release_id": release_id, "policy": policy, "selection": selection or {}} | {k: v for k, v in asked.items() if v}
        return cast(Json, self._api.call("POST", "/rollouts", body))

    def explain_rollout(self, rollout_id: str) -> Json:
        """Each gate of the open wave, what would change its answer, and what the plan foretells."""
        return cast(Json, self._api.call("GET", f"/rollouts/{quote(rollout_id, safe='')}/explain"))

    def decisions(self, rollout_id: str, version: int | None = None) -> Any:
        """The engine's actions with the digests of their facts; of one version its facts, decided again."""
        which = "" if version is None else f"/{version}"
        return self._api.call("GET", f"/rollouts/{quote(rollout_id, safe='')}/decisions{which}")

    def start_rollout(self, rollout_id: str, version: int | None = None, reason: str = "") -> Json:
        """Start a planned rollout."""
        return self.action(rollout_id, "start", version, reason)

    def action(self, rollout_id: str, action: str, version: int | None = None, reason: str = "") -> Json:
        """start, pause, confirm, resume, abort or roll-back; without a version it means the rollout as it is now."""
        known = int(self.rollout(rollout_id)["version"]) if version is None else version
        path = f"/rollouts/{quote(rollout_id, safe='')}/{quote(action, safe='')}"
        return cast(Json, self._api.call("POST", path, {"version": known, "reason": reason}))

    def approvals(self, rollout_id: str) -> Json:
        """Who approved a rollout, what is missing, and the digest that an approval must name."""
        return cast(Json, self._api.call("GET", f"/rollouts/{quote(rollout_id, safe='')}/approvals"))

    def approve_rollout(self, rollout_id: str, digest: str, note: str = "") -> Json:
        """Approve the plan of that digest."""
        return cast(Json, self._api.call("POST", f"/rollouts/{quote(rollout_id, safe='')}/approve", {"digest": digest, "note": note}))

    def fleet_halt(self) -> Json:
        """Whether the fleet is halted, and what waits for the lift."""
        return cast(Json, self._api.call("GET", "/fleet/halt"))

    def halt_fleet(self, reason: str) -> Json:
        """Stop every rollout on every device."""
        return cast(Json, self._api.call("POST", "/fleet/halt", {"reason": reason}))

    def lift_fleet(self, reason: str) -> Json:
        """Let rollouts go on."""
        return cast(Json, self._api.call("POST", "/fleet/lift", {"reason": reason}))

    def release_floor(self, project: str) -> Json:
        """The oldest release of a project that may be given to a device."""
        return cast(Json, self._api.call("GET", f"/projects/{quote(project, safe='')}/floor"))

    def raise_floor(self, project: str, release_id: str, reason: str) -> Json:
        """Raise it to a release; it is never lowered."""
        return cast(
            Json, self._api.call("POST", f"/projects/{quote(project, safe='')}/floor", {"release_id": release_id, "reason": reason})
        )

    def create_experiment(self, release_id: str, plan: Json, policy: Json | None = None, selection: Selection | None = None) -> Json:
        """Plan an A/B experiment that waits for its start; `release_id` is arm B's."""
        body = {"release_id": release_id, "plan": plan, "policy": policy, "selection": selection or {}}
        return cast(Json, self._api.call("POST", "/experiments", body))

    def experiment(self, experiment_id: str) -> Json:
        """One experiment with its arms and what may end it."""
        return cast(Json, self._api.call("GET", f"/experiments/{quote(experiment_id, safe='')}"))

    def experiments(self) -> list[Json]:
        """The newest experiments."""
        return cast(list[Json], self._api.call("GET", "/experiments"))

    def stop_experiment(self, experiment_id: str, version: int, reason: str = "") -> Json:
        """End an experiment without an answer; arm B goes back."""
        path = f"/experiments/{quote(experiment_id, safe='')}/stop"
        return cast(Json, self._api.call("POST", path, {"version": version, "reason": reason}))

    def overview(self) -> Json:
        """What needs a person, and the fleet in numbers."""
        return cast(Json, self._api.call("GET", "/overview"))

    def releases(self) -> list[Json]:
        """All releases, newest first."""
        return cast(list[Json], self._api.call("GET", "/releases"))

    def rollouts(self) -> list[Json]:
        """The newest rollouts."""
        return cast(list[Json], self._api.call("GET", "/rollouts"))

    def rollout(self, rollout_id: str) -> Json:
        """One rollout with its waves."""
        return cast(Json, self._api.call("GET", f"/rollouts/{quote(rollout_id, safe='')}"))

    def devices(self, **filters: str) -> list[Json]:
        """All devices, page by page; filters are project=..., label="key=value", select="expression" (with project)."""
        found: list[Json] = []
        while True:
            after = {"after": found[-1]["device_id"]} if found else {}
            page = cast(list[Json], self._api.call("GET", f"/devices?{urlencode({**filters, **after, 'limit': '1000'})}"))
            found += page
            if len(page) < 1000:
                return found

    def device(self, device_id: str, hours: int | None = None) -> Json:
        """One device, with what it observed in the last hours (24 when not given)."""
        return cast(Json, self._api.call("GET", f"/devices/{quote(device_id, safe='')}" + (f"?hours={hours}" if hours is not None else "")))

    def groups(self, project: str | None = None) -> list[Json]:
        """Groups of devices, of one project or all, page by page, with how many devices each selects now."""
        return all_groups(self._api, project)

    def set_group(self, project: str, name: str, selection: Selection, reason: str) -> Json:
        """Make a group, or change whom it means from now on."""
        return cast(Json, self._api.call("PUT", _group_path(project, name), {"selection": selection, "reason": reason}))

    def remove_group(self, project: str, name: str, reason: str) -> Json:
        """Forget a group; rollouts that were planned with it go on as planned."""
        return cast(Json, self._api.call("POST", f"{_group_path(project, name)}/remove", {"reason": reason}))

    def relabel(self, device_id: str, put: dict[str, str], drop: list[str], reason: str) -> dict[str, str]:
        """Set and drop single labels of a device; all that it has then."""
        path = f"/devices/{quote(device_id, safe='')}/labels"
        return cast(dict[str, str], self._api.call("PATCH", path, {"set": put, "drop": drop, "reason": reason})["labels"])

    def replace_labels(self, device_id: str, labels: dict[str, str], reason: str, were: dict[str, str] | None = None) -> dict[str, str]:
        """Replace all labels of a device; refused when `were` is given and they are others by now."""
        path = f"/devices/{quote(device_id, safe='')}/labels"
        return cast(dict[str, str], self._api.call("PUT", path, {"labels": labels, "were": were, "reason": reason})["labels"])

    def remove_device(self, device_id: str, reason: str) -> Json:
        """Take a device out of the fleet; what that means in each rollout that it was in."""
        return cast(Json, self._api.call("POST", f"/devices/{quote(device_id, safe='')}/remove", {"reason": reason}))

    def unquarantine(self, device_id: str, bundle: str, reason: str) -> Json:
        """Let a device try a bundle again that failed there."""
        path = f"/devices/{quote(device_id, safe='')}/unquarantine"
        return cast(Json, self._api.call("POST", path, {"bundle": bundle, "reason": reason}))

    def observed(self, project: str, hours: int | None = None) -> Json:
        """What all devices of a project observed in the last hours (24 when not given)."""
        filters = {"project": project} | ({"hours": str(hours)} if hours is not None else {})
        return cast(Json, self._api.call("GET", f"/observed?{urlencode(filters)}"))

    def sampling(self) -> list[Json]:
        """Orders about rows that may leave devices."""
        return cast(list[Json], self._api.call("GET", "/sampling"))

    def order_sampling(self, whom: Json, order: Json) -> list[Json]:
        """Allow devices to send rows.

        Args:
            whom: {"device_ids": [...]} or {"project": ..., "selection": {label: value} or an expression}.
            order: rows_per_hour, until_at (ISO 8601 with a time zone), redact, bytes_per_day.
        """
        return cast(list[Json], self._api.call("POST", "/sampling", {**whom, **order}))

    def stop_sampling(self, whom: Json) -> list[str]:
        """Take the orders of devices back; the devices that had one."""
        return cast(list[str], self._api.call("POST", "/sampling/stop", whom)["stopped"])

    def samples(self, device_id: str, limit: int = 100) -> list[Json]:
        """Rows that came from a device as they came in there, newest first."""
        return cast(list[Json], self._api.call("GET", f"/devices/{quote(device_id, safe='')}/samples?limit={limit}"))

    def drift(self, project: str | None = None) -> Json | None:
        """Drift of a project."""
        return cast(Json | None, self._api.call("GET", "/drift" + (f"?{urlencode({'project': project})}" if project else "")))

    def explanations(self, project: str | None = None, device: str | None = None, limit: int = 20) -> list[Json]:
        """Explained predictions, newest first."""
        filters = {key: value for key, value in (("project", project), ("device", device)) if value is not None}
        return cast(list[Json], self._api.call("GET", f"/explanations?{urlencode({**filters, 'limit': limit})}"))

    def events(self, after: int = 0, limit: int = 200) -> list[Json]:
        """The log after a number, oldest first."""
        return cast(list[Json], self._api.call("GET", f"/events?{urlencode({'after': after, 'limit': limit})}"))

    def _has_blob(self, sha256: str) -> bool:
        try:
            self._api.request("HEAD", f"/blobs/{sha256}", None, {})
        except ServerRefusedError as err:
            if err.status == 404:
                return False
            raise
        return True


def _group_path(project: str, name: str) -> str:
    return f"/projects/{quote(project, safe='')}/groups/{quote(name, safe='')}"
