"""`edgefleet bundle`: show, verify, compare."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from edgefleet.bundle import Bundle
from edgefleet.bundle_diff import PARTS, Difference, bundle_gates, differences
from edgefleet.cli.main import print_json
from edgefleet.graphs import check_bundle
from edgefleet.manifest import Manifest
from edgefleet.report.table import table

_FOLDER = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_WIDTH: Final = 60


@click.group()
def bundle() -> None:
    """Show, verify or compare bundles."""


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=_FOLDER)
@_JSON
def show(folder: Path, as_json: bool) -> None:
    """What a BUNDLE holds: variants with what they need and how they explain, inputs, gates; graphs are not read."""
    opened = Bundle.open(folder)
    manifest = opened.manifest
    gates = bundle_gates(opened)
    if as_json:
        document = {
            "bundle": str(folder), "digest": opened.digest, "project": manifest.project, "task": manifest.task, "classes": manifest.classes,
            "inputs": [column.name for column in manifest.inputs], "outputs": manifest.outputs, "margin_kind": manifest.margin_kind,
            "shape": manifest.shape, "window_rows": manifest.window_rows, "threshold": manifest.threshold, "positive": manifest.positive,
            "sampling": None if manifest.sampling is None else msgspec.to_builtins(manifest.sampling),
            "package_digest": manifest.package_digest, "reference_digest": manifest.reference_digest,
            "outlier": None if manifest.outlier is None else manifest.outlier.method,
            "mlflow": None if manifest.mlflow is None else manifest.mlflow.reason,
            "overrides": [{"gate": override.gate, "reason": override.reason} for override in manifest.overrides],
            "variants": _variants(manifest), "gates": gates,
            "files": {name: entry.size_bytes for name, entry in manifest.files.items()},
        }  # fmt: skip
        print_json(document)
        return
    _print_bundle(opened, gates)


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=_FOLDER)
def verify(folder: Path) -> None:
    """Compare every file of a BUNDLE with the manifest, and the operators of its graphs with the list; exit code 3 when one differs."""
    opened = Bundle.open(folder)
    opened.verify()
    check_bundle(opened)
    click.echo(f"bundle {opened.digest[:12]}: {len(opened.manifest.files)} files are as the manifest says")


@bundle.command()
@click.argument("before", metavar="A", type=_FOLDER)
@click.argument("after", metavar="B", type=_FOLDER)
@_JSON
def diff(before: Path, after: Path, as_json: bool) -> None:
    """What differs from bundle A to B: variants, inputs, outputs, decision, gates, explainers, reference, golden rows, origin, files.

    Measurements of the converting machine (measured.json) are not compared. Exit codes: 0 the same bundle, 1 they differ, 3 one cannot be
    read.
    """
    one, other = Bundle.open(before), Bundle.open(after)
    found = differences(one, other)
    if as_json:
        told = [{"kind": difference.kind, **asdict(difference)} for difference in found]
        print_json({"same": not found, "a": one.digest, "b": other.digest, "differences": told})
    elif not found:
        click.echo(f"the same bundle: {one.digest}")
    else:
        _print_differences(found)
    if found:
        sys.exit(1)


def _variants(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "name": variant.name, "runtime": variant.runtime, "file": variant.file, "size_bytes": manifest.files[variant.file].size_bytes,
            "download_bytes": sum(manifest.files[file].size_bytes for file in manifest.variant_files(variant.name)),
            "model_digest": variant.model_digest, "opset": variant.opset, "operators": variant.operators,
            "takes_missing": variant.takes_missing, "explain_method": variant.explain_method, "explainer": variant.explainer,
            "explain_graph": variant.explain_graph, "explain_reason": variant.explain_reason,
            "max_error": variant.tolerance.max_error, "extra_files": variant.extra_files,
        }
        for variant in manifest.variants
    ]  # fmt: skip


def _print_bundle(opened: Bundle, gates: list[dict[str, Any]]) -> None:
    manifest = opened.manifest
    click.echo(f"bundle {opened.digest}")
    window = f", windows of {manifest.window_rows} rows" if manifest.window_rows > 1 else ""
    click.echo(f"project {manifest.project}, {manifest.task}, {len(manifest.inputs)} inputs{window}, {len(manifest.classes)} classes")
    if manifest.sampling is not None:
        grid = manifest.sampling
        reset = "" if grid.reset_after is None else f", a silence of more than {grid.reset_after} points empties the window"
        click.echo(f"rows on a grid of {grid.rate_s:g} s by column {grid.time!r}, a value stands for {grid.hold} further points{reset}")
    if manifest.threshold is not None:
        click.echo(f"decision threshold {manifest.threshold:.6g}{f' of {manifest.positive}' if manifest.positive else ''}")
    outlier = manifest.outlier
    if outlier is not None:
        click.echo(f"outliers by {outlier.method} above {outlier.threshold:.6g}{f'; {outlier.reason}' if outlier.reason else ''}")
    variants = _variants(manifest)
    verdicts = {variant["name"]: _verdicts(variant["name"], gates) for variant in variants}
    rows = [
        [v["name"], v["runtime"], v["size_bytes"], v["download_bytes"], v["explain_method"], "yes" if v["takes_missing"] else "no",
         v["model_digest"][:12], verdicts[v["name"]]]
        for v in variants
    ]  # fmt: skip
    header = ["variant", "runtime", "bytes", "bytes to fetch", "explained", "missing values", "digest", "gates"]
    click.echo(f"\n{table(header, rows)}\n")
    for variant in variants:
        if variant["runtime"] == "c":
            click.echo(f"{variant['name']} needs a C99 compiler with its mathematical library")
            continue
        opset = f"opset {variant['opset']}, " if variant["opset"] else ""
        operators = ", ".join(variant["operators"]) or "none listed"
        click.echo(f"{variant['name']} needs {variant['runtime']}: {opset}operators {operators}")
    own = [gate for gate in gates if not gate.get("variant")]
    if own:
        click.echo(
            f"\n{table(['gate', 'verdict', 'why'], [[gate.get('gate'), gate.get('verdict'), gate.get('sentence')] for gate in own])}"
        )
    for override in manifest.overrides:
        click.echo(f"overruled: gate {override.gate}: {override.reason}")


def _verdicts(variant: str, gates: list[dict[str, Any]]) -> str:
    """`pass C1 C2; skipped C5`: the gates of one variant by verdict."""
    by_verdict: dict[str, list[str]] = {}
    for gate in gates:
        if gate.get("variant") == variant:
            by_verdict.setdefault(str(gate.get("verdict")), []).append(str(gate.get("gate")))
    return "; ".join(f"{verdict} {' '.join(dict.fromkeys(names))}" for verdict, names in by_verdict.items())


def _print_differences(found: list[Difference]) -> None:
    for part in PARTS:
        there = [difference for difference in found if difference.part == part]
        if not there:
            continue
        click.echo(f"{part}:")
        for difference in there:
            change = {
                "added": f"added    {difference.name}: {_short(difference.after)}",
                "removed": f"removed  {difference.name}: {_short(difference.before)}",
                "changed": f"changed  {difference.name}: {_short(difference.before)} -> {_short(difference.after)}",
            }[difference.kind]
            click.echo(f"  {change}")


def _short(value: Any) -> str:
    """A value on one line; digests by their first twelve signs."""
    if isinstance(value, str):
        is_digest = len(value) == 64 and all(sign in "0123456789abcdef" for sign in value)
        return value[:12] if is_digest else value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(part)}" for name, part in value.items() if part is not None)
    written = json.dumps(value)
    return written if len(written) <= _WIDTH else f"{written[: _WIDTH - 4]} ..."
