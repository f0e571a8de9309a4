"""`python -m edgefleet` is the command `edgefleet`."""

from edgefleet.cli.main import main

if __name__ == "__main__":
    main()
