"""What differs between two bundles, part by part. Everything that a manifest holds is compared, so that equal parts mean equal bundles.

measured.json is not looked at: it depends on clock and host and is no part of a bundle's identity.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np

from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError
from edgefleet.package import read_npz
from edgefleet.reference import Reference

Part = Literal["bundle", "variant", "input", "output", "decision", "gate", "explainer", "reference", "golden", "provenance", "file"]
PARTS: Final[tuple[Part, ...]] = (
    "bundle", "variant", "input", "output", "decision", "gate", "explainer", "reference", "golden", "provenance", "file",
)  # fmt: skip

# Which part each plain field of the manifest belongs to; a field that is not named here is the bundle's own.
_FIELDS: Final[dict[str, Part]] = {
    "outputs": "output", "margin_kind": "output", "classes": "decision", "threshold": "decision", "positive": "decision", "task": "output",
    "outlier": "decision", "package_digest": "provenance", "overrides": "gate", "mlflow": "provenance", "reference": "reference",
    "reference_digest": "reference", "statistics": "reference", "golden": "golden",
}  # fmt: skip
_ELSEWHERE: Final = frozenset({"variants", "inputs", "files"})
_EXPLAINER_FIELDS: Final = frozenset({"explainer", "explain_method"})


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        part: Which part of the bundle.
        name: Of the thing, with a dot before the field: `tflite-int8.model_digest`.
        before: In the first bundle, None where it is missing.
        after: In the second, None where it is missing.
    """

    part: Part
    name: str
    before: Any
    after: Any

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What happened from the first to the second."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def differences(before: Bundle, after: Bundle) -> list[Difference]:
    """Everything that differs, in the order of `PARTS`; empty for the same bundle.

    Raises:
        ArtifactError: A file that has to be looked into (gates, reference statistics, golden rows) is missing or damaged.
    """
    if before.digest == after.digest:
        return []
    found = [Difference("bundle", "digest", before.digest, after.digest)]
    one, other = (msgspec.to_builtins(bundle.manifest) for bundle in (before, after))
    for name in one:
        if name not in _ELSEWHERE:
            found += _changed(_FIELDS.get(name, "bundle"), name, one[name], other[name])
    found += _variants(before, after)
    found += _inputs(one["inputs"], other["inputs"])
    found += _gates(before, after)
    found += _reference(before, after)
    found += _golden(before, after)
    digests = ({name: entry["sha256"] for name, entry in document["files"].items()} for document in (one, other))
    found += _members("file", *digests)
    return sorted(found, key=lambda difference: PARTS.index(difference.part))


def _changed(part: Part, name: str, before: Any, after: Any) -> list[Difference]:
    return [] if before == after else [Difference(part, name, before, after)]


def _members(part: Part, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    """Members by name, those of the first bundle in its order, then new ones."""
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Difference(part, name, before.get(name), after.get(name))


def _variants(before: Bundle, after: Bundle) -> Iterator[Difference]:
    one, other = (
        {
            variant.name: {**msgspec.to_builtins(variant), "size_bytes": bundle.manifest.files[variant.file].size_bytes}
            for variant in bundle.manifest.variants
        }
        for bundle in (before, after)
    )
    if (names := list(one)) != (theirs := list(other)) and set(names) == set(theirs):
        yield Difference("variant", "order", names, theirs)
    for name in dict.fromkeys([*one, *other]):
        if name not in one or name not in other:
            yield Difference("variant", name, _short(one.get(name)), _short(other.get(name)))
            continue
        for field in one[name]:
            part: Part = "explainer" if field in _EXPLAINER_FIELDS else "variant"
            yield from _changed(part, f"{name}.{field}", one[name][field], other[name][field])


def _short(variant: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if variant is None else {name: variant[name] for name in ("runtime", "size_bytes", "model_digest", "explain_method")}


def _inputs(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[Difference]:
    one, other = ({column["name"]: column for column in columns} for columns in (before, after))
    if (names := list(one)) != (theirs := list(other)) and set(names) == set(theirs):
        yield Difference("input", "order", names, theirs)
    for name in dict.fromkeys([*one, *other]):
        if name not in one or name not in other:
            yield Difference("input", name, one.get(name), other.get(name))
            continue
        for field in one[name]:
            yield from _changed("input", f"{name}.{field}", one[name][field], other[name][field])


def _gates(before: Bundle, after: Bundle) -> Iterator[Difference]:
    one, other = (_gates_of(bundle) for bundle in (before, after))
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            yield Difference("gate", name, one.get(name), other.get(name))


def _gates_of(bundle: Bundle) -> dict[str, Any]:
    """Verdict, value and limit by gate and variant; a gate that stands there twice gets a number."""
    found: dict[str, Any] = {}
    for gate in bundle_gates(bundle):
        name = f"{gate.get('variant') or 'model'}.{gate.get('gate', '?')}"
        unique = name
        count = 1
        while unique in found:
            count += 1
            unique = f"{name}#{count}"
        found[unique] = {key: gate.get(key) for key in ("verdict", "value", "limit", "n")}
    return found


def bundle_gates(bundle: Bundle) -> list[dict[str, Any]]:
    """The entries of a bundle's gates.json, [] where it has none.

    Raises:
        ArtifactError: Missing, damaged, or no list of objects.
    """
    if "gates.json" not in bundle.manifest.files:
        return []
    try:
        return msgspec.json.decode(bundle.read("gates.json"), type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ArtifactError(f"gates.json of bundle {bundle.digest[:12]}: {str(err)[:200]}; convert again") from err


def _reference(before: Bundle, after: Bundle) -> Iterator[Difference]:
    """Inputs whose bins differ, and inputs whose counts do."""
    if before.manifest.reference_digest == after.manifest.reference_digest:
        return
    one, other = (Reference.from_bytes(bundle.read(bundle.manifest.reference)) for bundle in (before, after))
    places = [{name: i for i, name in enumerate(bundle.manifest.counted)} for bundle in (before, after)]
    both = [name for name in places[0] if name in places[1] and places[0][name] < one.features and places[1][name] < other.features]
    for name in both:
        i, j = places[0][name], places[1][name]
        mine, theirs = (_bins(reference, place) for reference, place in ((one, i), (other, j)))
        yield from _changed("reference", f"{name}.bins", mine, theirs)
        if mine == theirs and not np.array_equal(one.counts[i], other.counts[j]):
            yield Difference("reference", f"{name}.counts", one.counts[i].tolist(), other.counts[j].tolist())
    yield from _changed("reference", "rows", _rows(one), _rows(other))
    yield from _changed("reference", "windows", len(one.blocks), len(other.blocks))


def _bins(reference: Reference, place: int) -> list[float] | int:
    """Edges that a number uses, or how many cells a category has."""
    used = int(reference.bins[place])
    if reference.is_category[place]:
        return used
    edges = reference.edges[place]
    return [float(edge) for edge in edges[np.isfinite(edges)]]


def _rows(reference: Reference) -> int:
    return int(reference.counts[0].sum())


def _golden(before: Bundle, after: Bundle) -> Iterator[Difference]:
    entries = [bundle.manifest.files.get(bundle.manifest.golden) for bundle in (before, after)]
    if entries[0] == entries[1]:
        return
    one, other = (read_npz(bundle.read(bundle.manifest.golden), (), "golden rows") for bundle in (before, after))
    yield from _changed("golden", "rows", len(one.get("x", ())), len(other.get("x", ())))
    for name in dict.fromkeys([*one, *other]):
        if name not in one or name not in other:
            yield Difference("golden", name, *("there" if name in arrays else None for arrays in (one, other)))
        elif not np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f" == other[name].dtype.kind):
            yield Difference("golden", name, _described(one[name]), _described(other[name]))


def _described(array: Any) -> str:
    from edgefleet.digests import sha256_hex

    return f"{array.dtype} {list(array.shape)} {sha256_hex(array.tobytes())[:12]}"
