"""Opens damaged graphs as the self-test's child does, one after the other, until one of them ends this process.

Arguments: bundle folder, first number, number after the last, folder for its files. For each number it writes one line when it begins and
one with what came of it, so that whoever waits knows which one killed it. A start costs a second and a graph some milliseconds: hence many.
"""

import json
import os
import sys
from pathlib import Path
from typing import IO

import msgspec

from device_agent.update.limits import limit_process
from device_agent.update.selftest import check_golden
from edgefleet.bundle import Bundle
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, EdgefleetError
from edgefleet.manifest import FileEntry, Manifest, manifest_bytes
from tests.faults.damage import damaged

MEMORY_BYTES = 3 << 30
CPU_S = 3600


def listing(bundle: Bundle, files: dict[str, bytes]) -> Manifest:
    """The bundle's manifest with other content of some files, which says nothing of the first variant's operators."""
    entries = {name: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for name, content in files.items()}
    entries = {**bundle.manifest.files, **entries}
    variant = bundle.manifest.variants[0]
    variant = msgspec.structs.replace(variant, model_digest=entries[variant.file].sha256, operators=[])
    return msgspec.structs.replace(bundle.manifest, files=entries, variants=[variant])


def with_files(bundle: Bundle, folder: Path, files: dict[str, bytes]) -> None:
    """Write the bundle with other content of some files, as if it had been made so."""
    folder.mkdir()
    for name in bundle.manifest.files:
        (folder / name).write_bytes(files[name] if name in files else bundle.read(name))
    (folder / "manifest.json").write_bytes(manifest_bytes(listing(bundle, files)))


def outcome(bundle: Bundle, content: bytes, place: Path) -> tuple[str, str]:
    """What becomes of a bundle's first variant with another graph: (kind, words)."""
    variant = bundle.manifest.variants[0]
    place.write_bytes(content)

    def locate(name: str) -> Path:
        return place if name == variant.file else bundle.locate(name)

    if content == bundle.read(variant.file):
        return "unchanged", ""
    try:
        Bundle(bundle.manifest, bundle.digest, locate).verify()
    except ArtifactError as err:
        if variant.file not in str(err):
            return "unnamed", str(err)
    else:
        return "unnoticed", ""
    # Only who holds the release key comes further, with a manifest that lists the damaged file.
    manifest = listing(bundle, {variant.file: content})
    try:
        result = check_golden(Bundle.from_manifest(manifest_bytes(manifest), locate), manifest.variants[0])
    except EdgefleetError as err:
        return "refused", str(err)
    except Exception as err:  # what no agent expects
        return "untyped", f"{type(err).__name__}: {err}"
    return ("same" if result.ok else "caught"), result.reason


def work(bundle: Bundle, numbers: range, place: Path, told: IO[str]) -> None:
    """Damage, open, tell."""
    graph = bundle.read(bundle.manifest.variants[0].file)
    for number in numbers:
        told.write(json.dumps({"begins": number}) + "\n")
        told.flush()
        kind, words = outcome(bundle, damaged(graph, number), place)
        told.write(json.dumps({"number": number, "kind": kind, "words": words[:300]}) + "\n")
        told.flush()


def main(arguments: list[str]) -> None:
    """Child process: results on the first stdout, what native code prints nowhere."""
    folder, first, end, place = arguments
    told = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    limit_process(cpu_s=CPU_S, memory_bytes=MEMORY_BYTES)
    work(Bundle.open(folder), range(int(first), int(end)), Path(place) / "graph", told)


if __name__ == "__main__":
    main(sys.argv[1:])
