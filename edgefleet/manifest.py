"""The bundle's manifest: what the converter promises and the device checks.

The bundle digest is the sha256 of manifest.json's bytes. The manifest lists every file with sha256 and size, except itself and
measured.json (all that depends on clock or host). Order of `inputs` is column order everywhere: matrix, statistics, contributions.
"""

from typing import Any, Final, Literal

import msgspec

from edgefleet.digests import canonical_json
from edgefleet.errors import ArtifactError, ConfigError, InputError
from edgefleet.grid import Sampling
from edgefleet.identifiers import check_digest, check_id

FORMAT_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 1_048_576
MAX_FILES: Final = 256
MAX_INPUTS: Final = 65_536

RangePolicy = Literal["reject", "clip", "count"]
Runtime = Literal["onnxruntime", "litert", "c"]
ExplainMethod = Literal["linear", "treeshap", "amortised", "sampled"]
Task = Literal["classification", "regression", "anomaly"]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One raw input, one float32 column.

    Attributes:
        name: Feature name.
        kind: `number`, or `category` (the column is an index into `categories`, unseen is -1).
        unit: Unit of a number, "" when it has none.
        low: Least accepted value or None; with `high` judged by `range_policy`.
        high: Largest accepted value or None.
        range_policy: What happens outside [low, high]: refuse the row, clip the value, or only count it.
        missing: Whether NaN is allowed.
        categories: Texts by index, NFC, exact match.
    """

    name: str
    kind: Literal["number", "category"] = "number"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    range_policy: RangePolicy = "count"
    missing: bool = False
    categories: list[str] = []


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the self-test on the golden rows accepts from a variant; derived from its C gate.

    Attributes:
        max_error: Largest absolute error of a probability (classification) or of the value.
        tie_margin: Labels must be equal where the best two probabilities differ by more than this.
    """

    max_error: float
    tie_margin: float


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file a graph, for one runtime.

    Attributes:
        name: Target name, for example `tflite-int8`.
        runtime: Which runtime opens the file.
        file: File name inside the bundle.
        model_digest: Sha256 of the graph's bytes (`Score.digest`).
        tolerance: Bound of the self-test.
        explainer: File with what the explanation needs, or None. Of a variant in C the source file that explains by a function of its own.
        explain_method: How it explains, or None.
        explain_graph: The same explanation as a graph of the variant's runtime, for programs without this agent: `inputs` to
            `contributions` [n, F] or [n, F, K] and `base` [K]; None: there is none.
        explain_reason: Why there is no explanation, or why one that is exact has no graph; else "".
        takes_missing: Whether a missing value that the schema allows may be scored; integer arithmetic would answer it with confidence.
        operators: Names of the graph's operators, sorted: what the runtime must have.
        opset: Of the standard ONNX domain; 0 for other formats.
        extra_files: Further files that belong to the variant (C: header and self-test; other explainers' graphs).
    """

    name: str
    runtime: Runtime
    file: str
    model_digest: str
    tolerance: Tolerance
    explainer: str | None = None
    explain_method: ExplainMethod | None = None
    explain_graph: str | None = None
    explain_reason: str = ""
    takes_missing: bool = True
    operators: list[str] = []
    opset: int = 0
    extra_files: list[str] = []


class OutlierNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The outlier detector: graphs that take the same rows as the model and answer `margin` [n, 1], larger = stranger.

    Attributes:
        threshold: A row whose score is above it is an outlier.
        files: Graph by runtime; a runtime that is missing here has none.
        method: `mahalanobis` or `isolation_forest`.
        reason: Why a runtime has none, else "".
    """

    threshold: float
    files: dict[Runtime, str]
    method: str
    reason: str = ""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle by content."""

    sha256: str
    size_bytes: int


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gate that failed and was overruled by a person; travels with the bundle for ever."""

    gate: str
    reason: str


class MlflowNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the bundle is no MLflow model directory."""

    reason: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole manifest; see the module's text for its guarantees.

    Attributes:
        outputs: Names of the graph outputs, always `margin` [n, K] then for classifiers `probabilities` [n, classes].
        margin_kind: What the margin is: `log-odds`, `logit`, `mean leaf probability`, `target unit` or `anomaly score`.
        shape: Shape of one row's tensor; [features] for a matrix, e.g. [8, 8] for an image that is flattened in column order.
        window_rows: Consecutive rows that one answer needs (1 = none).
        reference: Name of the reference statistics file.
        reference_digest: Its sha256; statistics of other references never merge.
        golden: Name of the golden rows file.
        package_digest: Sha256 of the model package's package.json that this bundle was converted from.
        threshold: Two classes: `positive` is answered from this probability on, None: the likelier class. Anomaly: a row is strange from
            this score on.
        positive: Name of the class that the threshold speaks of, "" where there is none.
        outlier: The outlier detector, None where the package has none.
        statistics: Names of what the statistics count where that is not the inputs: of images their summaries. Left out of the file where
            it is empty.
        sampling: The grid on which rows become windows, None where they are taken as they come. Left out of the file where it is None, so
            that programs from before it read every bundle that they can serve.
    """

    format_version: int
    project: str
    task: Task
    inputs: list[Input]
    classes: list[str]
    outputs: list[str]
    margin_kind: str
    shape: list[int]
    window_rows: int
    variants: list[Variant]
    reference: str
    reference_digest: str
    golden: str
    package_digest: str
    files: dict[str, FileEntry]
    overrides: list[Override] = []
    mlflow: MlflowNote | None = None
    threshold: float | None = None
    positive: str = ""
    outlier: OutlierNote | None = None
    sampling: Sampling | None = None
    statistics: list[str] = []

    @property
    def counted(self) -> list[str]:
        """Names of what the statistics count, in their order."""
        return self.statistics or [column.name for column in self.inputs]

    def variant(self, name: str) -> Variant:
        """The variant of that name, else ArtifactError with the names there are."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ArtifactError(f"variant {name!r} is not in the bundle; it has {', '.join(v.name for v in self.variants) or 'none'}")

    def variant_files(self, name: str) -> list[str]:
        """What a device fetches to run one variant: its graph, its explainer, the outlier detector, reference and golden rows."""
        variant = self.variant(name)
        outlier = None if self.outlier is None else self.outlier.files.get(variant.runtime)
        wanted = [variant.file, variant.explainer, variant.explain_graph, *variant.extra_files, outlier, self.reference, self.golden]
        return [file for file in dict.fromkeys(wanted) if file is not None]


class _VersionOnly(msgspec.Struct):
    format_version: Any = None


def check_file_name(name: str) -> str:
    """Return `name` if it cannot leave the bundle folder: one or two plain segments, no hidden names, at most 120 characters."""
    parts = name.split("/")
    plain = all(part and not part.startswith(".") and all(c.isascii() and (c.isalnum() or c in "._-") for c in part) for part in parts)
    if not plain or len(parts) > 2 or len(name) > 120:
        raise ArtifactError(f"file name {name[:130]!r} is not allowed: plain letters, digits, '.', '_', '-', at most one folder")
    return name


def parse_manifest(content: bytes) -> Manifest:
    """Parse and check a manifest from bytes of any origin.

    Raises:
        ArtifactError: Too large, no JSON, unknown version, unknown field, or inconsistent.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"manifest: {len(content)} bytes exceed the limit of {MAX_MANIFEST_BYTES}")
    try:
        version = msgspec.json.decode(content, type=_VersionOnly).format_version
        if version != FORMAT_VERSION:
            raise ArtifactError(f"manifest: format version {version!r} is unknown, this program reads {FORMAT_VERSION}; upgrade it")
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ArtifactError(f"manifest: {len(content)} bytes are no valid manifest: {str(err)[:200]}") from err
    try:
        _check(manifest)
    except InputError as err:
        raise ArtifactError(f"manifest: {err}") from err
    return manifest


def manifest_bytes(manifest: Manifest) -> bytes:
    """Canonical JSON of a manifest: the bytes whose sha256 is the bundle digest."""
    document = msgspec.to_builtins(manifest)
    if manifest.sampling is None:
        del document["sampling"]
    if not manifest.statistics:
        del document["statistics"]
    return canonical_json(document)


def _check(manifest: Manifest) -> None:
    check_id(manifest.project, "project")
    _check_counts(manifest)
    _check_sampling(manifest)
    for name, entry in manifest.files.items():
        check_file_name(name)
        check_digest(entry.sha256, f"sha256 of {name}")
        if entry.size_bytes < 0:
            raise ArtifactError(f"manifest: {name} has a negative size")
    _check_references(manifest)


def _check_counts(manifest: Manifest) -> None:
    if not 1 <= len(manifest.inputs) <= MAX_INPUTS:
        raise ArtifactError(f"manifest: {len(manifest.inputs)} inputs, expected 1 to {MAX_INPUTS}")
    if len(manifest.files) > MAX_FILES:
        raise ArtifactError(f"manifest: {len(manifest.files)} files exceed the limit of {MAX_FILES}")
    if not manifest.variants:
        raise ArtifactError("manifest: no variant; convert the package again, every target was refused")
    names = [column.name for column in manifest.inputs]
    if len(set(names)) != len(names):
        raise ArtifactError("manifest: two inputs have the same name")


def _check_sampling(manifest: Manifest) -> None:
    sampling = manifest.sampling
    if sampling is None:
        return
    if manifest.window_rows < 2:
        raise ArtifactError(f"manifest: sampling puts rows on a grid for windows, and window_rows is {manifest.window_rows}; convert again")
    try:
        sampling.grid(1)
    except ConfigError as err:
        raise ArtifactError(f"manifest: sampling: {err}") from err
    if unknown := sorted({*sampling.present} - {column.name for column in manifest.inputs}):
        raise ArtifactError(f"manifest: sampling names {unknown[0][:80]!r}, which is no input; convert again")


def _check_references(manifest: Manifest) -> None:
    for variant in manifest.variants:
        for file in manifest.variant_files(variant.name):
            if file not in manifest.files:
                raise ArtifactError(f"manifest: {file!r} of variant {variant.name!r} is not among the files")
        if manifest.files[variant.file].sha256 != variant.model_digest:
            raise ArtifactError(f"manifest: model digest of {variant.name!r} is not the sha256 of {variant.file!r}")
    if manifest.files[manifest.reference].sha256 != manifest.reference_digest:
        raise ArtifactError("manifest: reference_digest is not the sha256 of the reference file")
