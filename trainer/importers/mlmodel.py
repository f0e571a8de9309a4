"""The few lines of an MLflow model directory's `MLmodel` that an import needs, read without a YAML library.

MLflow writes block mappings. What is read is `flavors`, their names, and their plain values; lists, nested mappings and long texts inside a
flavour are skipped. Flow style and anchors do not occur in files that MLflow wrote and are refused.
"""

from pathlib import Path
from typing import Final

from edgefleet.errors import ArtifactError

MLMODEL_NAME: Final = "MLmodel"
MAX_MLMODEL_BYTES: Final = 1_048_576  # input examples and signatures of wide tables stand in it
_NULLS: Final = ("null", "~", "")


def read_flavours(path: Path) -> dict[str, dict[str, str]]:
    """Flavour name -> its plain values as text; nulls are left out.

    Raises:
        ArtifactError: Unreadable, too large, or not as MLflow writes it.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_MLMODEL_BYTES + 1)
        text = content.decode()
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read: {err.strerror}; name an MLflow model directory or a model file") from err
    except UnicodeDecodeError as err:
        raise ArtifactError(f"{path}: byte {err.start} is no UTF-8; save the model again with MLflow") from err
    if len(content) > MAX_MLMODEL_BYTES:
        raise ArtifactError(f"{path}: larger than the limit of {MAX_MLMODEL_BYTES} bytes; save the model without an input example")
    flavours = parse_flavours(text)
    if not flavours:
        raise ArtifactError(f"{path}: no flavours are listed as MLflow lists them; save the model again with MLflow")
    return flavours


def parse_flavours(text: str) -> dict[str, dict[str, str]]:
    r"""The same from text; empty where there is no block mapping `flavors`.

    >>> parse_flavours("flavors:\n  onnx:\n    code: null\n    data: model.onnx\nmlflow_version: 3.17.2\n")
    {'onnx': {'data': 'model.onnx'}}
    """
    flavours: dict[str, dict[str, str]] = {}
    inside, outer, inner = False, 0, 0
    for line in text.splitlines():
        stripped = line.strip()
        depth = len(line) - len(line.lstrip(" "))
        if not stripped or stripped.startswith("#"):
            continue
        if depth == 0:
            inside = stripped == "flavors:"
            outer = inner = 0
            continue
        key, colon, value = stripped.partition(":")
        if not inside or stripped.startswith("- ") or not colon:
            continue
        outer = outer or depth
        if depth == outer:
            inner = 0
            if value.strip():
                return {}  # flow style, an anchor or a plain value: not MLflow's
            current = flavours.setdefault(_plain(key), {})
            continue
        inner = inner or depth
        if depth == inner and flavours and (plain := _plain(value)) not in _NULLS:
            current[_plain(key)] = plain
    return flavours


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" else text
