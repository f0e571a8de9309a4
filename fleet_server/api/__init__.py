"""REST under /api/v1: JSON in and out, errors as application/problem+json, one blueprint per resource.

A view parses, calls one use-case or query, and returns. It refuses bodies that are not exactly of the declared form: unknown fields,
numbers as text, another content type. Every view says which roles it answers.

Read `wire.py` next (parsing, replies, errors), then `rollouts.py`.
"""

from flask import Flask

from fleet_server.api import (
    blobs,
    comparisons,
    devices,
    experiments,
    fleet,
    groups,
    health,
    observations,
    people,
    releases,
    rollouts,
    sampling,
    wire,
)

PREFIX = "/api/v1"


def register(app: Flask) -> None:
    """Add all resources and the error forms."""
    wire.register_errors(app)
    for blueprint in (
        blobs.API,
        comparisons.API,
        devices.API,
        experiments.API,
        fleet.API,
        groups.API,
        health.API,
        observations.API,
        people.API,
        releases.API,
        rollouts.API,
        sampling.API,
    ):
        app.register_blueprint(blueprint, url_prefix=PREFIX)
    # Load balancers ask without a version and without a token.
    app.add_url_rule("/healthz", "healthz", health.healthz)
