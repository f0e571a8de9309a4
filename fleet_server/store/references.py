"""The part of reference statistics that people look at: edges and counts per cell, with the names of the inputs."""

import msgspec
import sqlalchemy as sa

from edgefleet.manifest import Manifest
from edgefleet.reference import Reference
from fleet_server.store.tables import REFERENCE
from fleet_server.store.upsert import insert_or_ignore


class ReferenceCells(msgspec.Struct, frozen=True, kw_only=True):
    """Reference counts, readable without the reference file.

    Attributes:
        names: [F] names of the inputs, or of what is counted in their place.
        categories: [F] texts of a category, [] for a number.
        edges: [F][11] edges of the bins; unused ones are None.
        bins: [F] bins in use.
        counts: [F][cells]: below, bins, above, missing, unseen.
    """

    names: list[str]
    categories: list[list[str]]
    edges: list[list[float | None]]
    bins: list[int]
    counts: list[list[int]]


def put(connection: sa.Connection, project: str, manifest: Manifest, reference: Reference) -> None:
    """Keep what histograms need of a reference."""
    cells = ReferenceCells(
        names=manifest.counted,
        categories=[[]] * len(manifest.counted)
        if manifest.statistics
        else [column.categories if column.kind == "category" else [] for column in manifest.inputs],
        edges=[[None if edge == float("inf") else edge for edge in row] for row in reference.edges.tolist()],
        bins=reference.bins.tolist(),
        counts=reference.counts.tolist(),
    )
    row = {"reference_digest": reference.digest, "project": project, "cells": msgspec.msgpack.encode(cells)}
    insert_or_ignore(connection, REFERENCE, [row])


def get(connection: sa.Connection, project: str, reference_digest: str) -> ReferenceCells | None:
    """The cells of a reference, None when no release here has it."""
    where = (REFERENCE.c.reference_digest == reference_digest, REFERENCE.c.project == project)
    content = connection.scalar(sa.select(REFERENCE.c.cells).where(*where))
    return None if content is None else msgspec.msgpack.decode(content, type=ReferenceCells)
