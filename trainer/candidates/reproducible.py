"""Model files without the clock and the memory addresses that their libraries write into them: equal models give equal bytes."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold, as numpy's .npz


def canonical_skops(content: bytes) -> bytes:
    """Number skops' objects in the order they are met, instead of by memory address; array files are named by the same numbers."""
    with ZipFile(BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files.pop("schema.json"))
    _share_plain_values(schema)
    numbers: dict[Any, int] = {}
    _edit(schema, "__id__", lambda address: numbers.setdefault(address, len(numbers)))

    def rename(name: Any) -> Any:
        stem, dot, suffix = str(name).partition(".")
        return f"{numbers[int(stem)]}{dot}{suffix}" if stem.isdigit() and int(stem) in numbers else name

    _edit(schema, "file", rename)
    renamed = {rename(name): array for name, array in files.items()} | {"schema.json": json.dumps(schema, sort_keys=True).encode()}
    # Stored arrays would be several times larger; the same zlib at its default level gives the same bytes.
    return _zip(renamed, ZIP_DEFLATED)


def canonical_keras(content: bytes) -> bytes:
    """Drop the date and renumber Keras' shared object ids, which are memory addresses."""
    with ZipFile(BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config, metadata = json.loads(files["config.json"]), json.loads(files["metadata.json"])
    numbers: dict[Any, int] = {}
    _edit(config, "shared_object_id", lambda address: numbers.setdefault(address, len(numbers)))
    metadata.pop("date_saved", None)
    files |= {"config.json": json.dumps(config, sort_keys=True).encode(), "metadata.json": json.dumps(metadata, sort_keys=True).encode()}
    return _zip(files, ZIP_STORED)


def _share_plain_values(node: Any) -> None:
    """Equal texts and numbers become one object: whether they were one in memory depends on which process made a part."""
    if isinstance(node, list):
        for item in node:
            _share_plain_values(item)
    elif isinstance(node, dict):
        if node.get("__loader__") == "JsonNode":
            node["__id__"] = f"plain {node['content']}"
        for value in node.values():
            _share_plain_values(value)


def _edit(node: Any, key: str, change: Callable[[Any], Any]) -> None:
    """Replace, in place and in order, the plain values that stand under `key` anywhere in a JSON document."""
    if isinstance(node, list):
        for item in node:
            _edit(item, key, change)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == key and isinstance(value, int | str):
                node[name] = change(value)
            else:
                _edit(value, key, change)


def _zip(files: dict[str, bytes], method: int) -> bytes:
    stream = BytesIO()
    with ZipFile(stream, "w", method) as archive:
        for name in sorted(files):
            archive.writestr(ZipInfo(name, _DATE), files[name], compress_type=method)
    return stream.getvalue()
