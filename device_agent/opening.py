"""What the scorer needs of a bundle, opened and held against the manifest: checks, outlier detector, explainer, unit of scores.

Whatever contradicts the manifest is an `ArtifactError` here, before the first row.
"""

from device_agent.checks import RowChecks
from device_agent.detector import Detector
from device_agent.explain import Explainer, open_explainer
from device_agent.runtime import Matrix, Session, open_runtime
from device_agent.window_checks import WindowChecks
from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError
from edgefleet.manifest import Manifest, Variant
from edgefleet.reference import Reference


def checks_of(manifest: Manifest, variant: Variant, ring: Matrix) -> RowChecks | WindowChecks:
    """The checks of rows, or of windows of rows, over a ring [slots + 1, values]."""
    no_missing = None if variant.takes_missing else variant.name
    if manifest.window_rows == 1:
        return RowChecks(manifest.inputs, ring, no_missing)
    return WindowChecks(manifest.inputs, manifest.window_rows, ring, no_missing)


def open_detector(bundle: Bundle, variant: Variant, model: Session) -> Detector | None:
    """The outlier detector for the variant's runtime, None where the bundle has none.

    Raises:
        ArtifactError: It takes other rows than the model, or answers something else than one score.
    """
    note = bundle.manifest.outlier
    file = None if note is None else note.files.get(variant.runtime)
    if note is None or file is None:
        return None
    session = open_runtime(variant.runtime, bundle.read(file))
    if (session.shape, session.margins, session.classes) != (model.shape, 1, 0):
        raise ArtifactError(
            f"{file} takes rows of shape {list(session.shape)} and answers {session.margins} margins and {session.classes} "
            f"probabilities, expected {list(model.shape)}, 1 and 0; convert again"
        )
    return Detector(session, note.threshold)


def reference_of(bundle: Bundle) -> Reference:
    """The reference statistics.

    Raises:
        ArtifactError: Of other features or columns than the manifest says.
    """
    manifest = bundle.manifest
    reference = Reference.from_bytes(bundle.read(manifest.reference))
    if (reference.features, reference.columns) != (len(manifest.counted), len(manifest.inputs)):
        raise ArtifactError(
            f"the reference statistics have {reference.features} features of {reference.columns} columns, the manifest "
            f"{len(manifest.counted)} of {len(manifest.inputs)} inputs; convert again"
        )
    return reference


def spread_of(reference: Reference) -> float | None:
    """Standard deviation of values or anomaly scores on the validation rows, None where the reference has no deciles of them.

    From the outer deciles, between which lie 2.563 standard deviations of a normal distribution: a wild score beyond them moves nothing.
    """
    edges = reference.score_edges
    return None if edges is None else float(edges[-2] - edges[1]) / 2.563


def check_shape(manifest: Manifest, variant: Variant, session: Session) -> None:
    """Hold a graph against the manifest.

    Raises:
        ArtifactError: Other rows, inputs or classes than the manifest lists.
    """
    rows = manifest.window_rows
    if len(session.shape) != (1 if rows == 1 else 2) or (rows != 1 and session.shape[0] != rows):
        taken = "single rows" if len(session.shape) == 1 else f"windows of {session.shape[0]} rows"
        wanted = "single rows" if rows == 1 else f"windows of {rows} rows"
        raise ArtifactError(f"{variant.file} takes {taken}, the manifest says {wanted}; convert again")
    if session.features != len(manifest.inputs):
        raise ArtifactError(
            f"{variant.file} takes {session.features} features, the manifest lists {len(manifest.inputs)} inputs; convert again"
        )
    expected = len(manifest.classes) if manifest.task == "classification" else 0
    if session.classes != expected:
        raise ArtifactError(f"{variant.file} answers {session.classes} probabilities, the manifest lists {expected} classes; convert again")


def explainer_of(bundle: Bundle, variant: Variant, session: Session) -> Explainer | None:
    """What explains the variant's answers, None where it carries nothing."""
    if variant.explainer is None or variant.explain_method is None:
        return None
    names = tuple(column.name for column in bundle.manifest.inputs)
    return open_explainer(bundle.read(variant.explainer), variant.explain_method, names, session.margins)
