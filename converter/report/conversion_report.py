"""The report of one conversion as HTML. It lies beside the bundle: bundles hold reproducible bytes, this page what a machine measured."""

from dataclasses import dataclass
from pathlib import Path

from converter.figures import Outcome, as_document
from converter.report import sections, variants
from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.page import Section, page, write_page
from edgefleet.report.parts import banner, code, note, pairs, paragraph


@dataclass(frozen=True)
class Story:
    """What the report tells beside the figures.

    Attributes:
        project: Name of the project.
        task: Kind of prediction.
        family: What the model is.
        package: Folder of the model package, as it was named.
        package_digest: Its digest.
        bundle: Folder of the bundle, as it was named.
        bundle_digest: Its digest, None when none was written.
        command: Command line that converts again.
        outcome: How every target fared.
    """

    project: str
    task: str
    family: str
    package: str
    package_digest: str
    bundle: str
    bundle_digest: str | None
    command: str
    outcome: Outcome


def report_path(bundle: Path) -> Path:
    """Where the report of a bundle lies: beside it.

    >>> report_path(Path("out/pump-bundle")).name
    'pump-bundle-report.html'
    """
    return bundle.parent / f"{bundle.name}-report.html"


def write_conversion_report(story: Story, path: Path) -> Path:
    """Write the report.

    Returns:
        The path.

    Raises:
        ConfigError: The file cannot be written there.
    """
    return write_page(path, conversion_page(story))


def conversion_page(story: Story) -> Html:
    """The report as HTML."""
    found = story.outcome
    document = as_document(found)
    bodies = [
        (
            "Which variant for which device",
            "Times and memory of a class are estimates from this machine's figures.",
            variants.devices(found),
        ),
        ("Variants", "", variants.variants(document)),
        ("Refused or open", "", sections.refused(found)),
        ("Budgets of the device", "", sections.declared_budgets(found)),
        ("Gates", "One-sided 95 % bounds are judged; a variant outside its limit is not in the bundle.", sections.gates(found)),
        ("Slices", "", sections.slices(found)),
        ("Truth of the explanations", "", sections.fidelity(found)),
        ("Calibration rows", "", sections.calibration(found)),
        ("Precision, layer by layer", "", sections.mixed(found)),
        ("Estimates for device profiles", "", sections.estimates(document)),
        ("Remarks", "", join(*(paragraph(sentence) for sentence in found.notes))),
        ("Where it comes from", "", _origin(story)),
        ("Do it again", "", join(code(story.command), note("Equal packages give equal bytes; times differ from machine to machine."))),
    ]
    listed = [Section(title, body, lead) for title, lead, body in bodies if body]
    return page(f"{story.project}: conversion report", listed, top=_verdict(story), subtitle=f"{story.family} · {story.task}")


def _verdict(story: Story) -> Html:
    reports = story.outcome.reports
    kept = [report.name for report in reports if report.kept]
    left = [report for report in reports if not report.kept]
    if not kept:
        return banner("fail", f"no variant is left of {len(reports)}: no bundle was written.", _why(story))
    sentence = f"{len(kept)} of {len(reports)} variants are proven and in the bundle: {', '.join(kept)}."
    front = story.outcome.front
    said = f"On the Pareto front of size, latency and metric: {', '.join(front)}." if front else ""
    inconclusive = any(report.verdict == "inconclusive" for report in reports if report.kept)
    return banner(
        "inconclusive" if inconclusive else "pass", sentence, " ".join(part for part in (said, _why(story) if left else "") if part)
    )


def _why(story: Story) -> str:
    left = [report for report in story.outcome.reports if not report.kept]
    return f"Refused: {', '.join(report.name for report in left)}; the reasons are below."


def _origin(story: Story) -> Html:
    digest = story.bundle_digest
    return join(
        pairs([
            ("Package", story.package), ("Package digest", story.package_digest),
            ("Bundle", story.bundle if digest else "none was written"),
            *([("Bundle digest", digest)] if digest else []),
        ]),
        sections.host(story.outcome) or EMPTY,
    )  # fmt: skip
