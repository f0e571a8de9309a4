"""What two machines must agree on, and the one command line.

Bundle manifest, messages, topics, statistics, signatures and errors live here, because the trainer, the converter, the device agent and the
fleet server all read or write them. The package refuses to know any of those four: they import it, never the other way round
(only `edgefleet.cli` opens them, lazily, inside the subcommand that needs them).

Read `manifest.py` next: the bundle is the artefact that everything else is about.
"""

__version__ = "0.1.0"
