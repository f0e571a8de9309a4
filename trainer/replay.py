"""A run again: the project as the record remembers it, and what differs between the old run and the repeat.

scikit-learn: the same rows, settings and library versions give the same bytes of the model. Keras: the same metrics within 1e-6 (the file
holds dates and addresses in its raw form, and threads may sum in another order). What differs is named, causes before effects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from edgefleet.errors import ArtifactError

# Sums of float32 products in another order differ by about 1e-7 of the result; a metric on the same rows moves by less than this, unless an
# answer tips over, which is a difference to be told.
METRIC_TOLERANCE: Final = 1e-6
BYTES_ARE_EQUAL: Final = (".skops",)  # model files that an equal training writes equal, byte for byte

Kind = Literal["cause", "result"]


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        what: Its place, for example `rows`, `setting search.seed`, `version numpy`, `forest: model bytes`, `forest: accuracy`.
        kind: `cause` (the repeat was asked something else) or `result` (it gave something else).
        before: In the old run; None when it was not there.
        now: In the repeat.
    """

    what: str
    kind: Kind
    before: Any
    now: Any

    @property
    def sentence(self) -> str:
        """In words."""
        return f"{self.what} was {_shown(self.before)} and is {_shown(self.now)}"


def replay_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything needed to train again what a run trained.

    Returns:
        tables: The tables of project.toml, --set changes applied.
        candidates: Names that were asked for.
        overrides: [{gate, reason}].
        champion: Package digest of the champion it was compared with, or None: the package itself is not in the record.

    Raises:
        ArtifactError: The record holds no settings: it is damaged, or the run ended before it had read them.
    """
    tables = record.get("settings")
    if not isinstance(tables, dict) or not tables:
        raise ArtifactError(f"run {record.get('id', '?')}: its record holds no settings ({record.get('status')}); choose another run")
    return {
        "tables": tables,
        "candidates": list(record.get("candidates_asked") or []),
        "overrides": list(record.get("overrides_asked") or []),
        "champion": record.get("champion"),
    }


def compare_replay(old_record: Mapping[str, Any], new_record: Mapping[str, Any]) -> list[Difference]:
    """What differs between a run and its repeat: causes (rows, settings, code, libraries) first, then results.

    An empty list proves that the run is reproducible. A result that differs without a cause is a finding about the code.
    """
    found = [
        Difference(what, "cause", old_record.get(key), new_record.get(key))
        for key, what in (("data_digest", "rows"), ("champion", "champion"))
        if old_record.get(key) != new_record.get(key)
    ]
    found += _settings(old_record, new_record)
    found += _environment(old_record, new_record)
    found += _code(old_record, new_record)
    for key, what in (("status", "outcome"), ("winner", "winner")):
        if old_record.get(key) != new_record.get(key):
            found.append(Difference(what, "result", old_record.get(key), new_record.get(key)))
    return found + _candidates(old_record, new_record) + _test(old_record, new_record)


def setting_differences(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> list[tuple[str, Any, Any]]:
    """Settings that differ, by their dotted name; None stands for an absent one."""
    found: list[tuple[str, Any, Any]] = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new, place = before.get(name), now.get(name), f"{at}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += setting_differences(old, new, f"{place}.")
        elif old != new:
            found.append((place, old, new))
    return found


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    settings = setting_differences(old.get("settings") or {}, new.get("settings") or {})
    found = [Difference(f"setting {name}", "cause", a, b) for name, a, b in settings]
    if not found and old.get("project_digest") != new.get("project_digest"):
        found.append(Difference("project digest", "cause", old.get("project_digest"), new.get("project_digest")))
    for key, what in (("seed", "seed"), ("candidates_asked", "candidates asked"), ("overrides_asked", "overrides")):
        if old.get(key) != new.get(key) and not any(difference.what.endswith(f".{key}") for difference in found):
            found.append(Difference(what, "cause", old.get(key), new.get(key)))
    return found


def _environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    before, now = old.get("environment") or {}, new.get("environment") or {}
    found = [
        Difference(f"version {n}", "cause", a, b)
        for n, a, b in setting_differences(before.get("packages") or {}, now.get("packages") or {})
    ]
    for name in ("python", "platform", "cores"):
        if before.get(name) != now.get(name):
            found.append(Difference(name, "cause", before.get(name), now.get(name)))
    return found


def _code(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    before, now = old.get("code") or {}, new.get("code") or {}
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before and now:
        return [Difference(f"code of {unit}", "cause", a, b) for unit, a, b in setting_differences(before, now)]
    git_before, git_now = old.get("git") or {}, new.get("git") or {}
    if git_before.get("commit") != git_now.get("commit"):
        return [Difference("git commit", "cause", git_before.get("commit"), git_now.get("commit"))]
    return []


def _candidates(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    before, now = old.get("candidates") or {}, new.get("candidates") or {}
    found: list[Difference] = []
    for name in [*before, *(name for name in now if name not in before)]:
        one, other = before.get(name), now.get(name)
        if one is None or other is None:
            found.append(Difference(f"{name}: candidate", "result", one and "there", other and "there"))
            continue
        for key, what in (("parameters", "parameter"), ("decision", "decision")):
            pairs = setting_differences(one.get(key) or {}, other.get(key) or {})
            found += [Difference(f"{name}: {what} {place}", "result", a, b) for place, a, b in pairs if not _close(a, b)]
        byte_equal = str(one.get("model", "")).endswith(BYTES_ARE_EQUAL) or str(other.get("model", "")).endswith(BYTES_ARE_EQUAL)
        if byte_equal and one.get("model_digest") != other.get("model_digest"):
            found.append(Difference(f"{name}: model bytes", "result", one.get("model_digest"), other.get("model_digest")))
        found += _metrics(
            name, one.get("metrics") or {"metric": one.get("metric")}, other.get("metrics") or {"metric": other.get("metric")}
        )
    return found


def _test(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    before, now = old.get("test"), new.get("test")
    return _metrics("test", before if isinstance(before, Mapping) else {}, now if isinstance(now, Mapping) else {})


def _metrics(where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    found = []
    for name, old, new in setting_differences(before, now):
        if not _close(old, new):
            found.append(Difference(f"{where}: {name.removesuffix('.value')}", "result", old, new))
    return found


def _close(before: Any, now: Any) -> bool:
    """Whether two values are equal, numbers within the tolerance, relative to the larger one when that is above 1."""
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_close, before, now))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, now))
    if not numbers:
        return bool(before == now)
    return bool(abs(before - now) <= METRIC_TOLERANCE * max(1.0, abs(before), abs(now)))


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
