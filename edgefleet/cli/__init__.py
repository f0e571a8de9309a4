"""The one command line. Subcommands are opened lazily: `edgefleet --help` imports no heavy library, on any machine."""
