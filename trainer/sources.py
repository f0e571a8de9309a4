"""Where rows come from: a Python function of the user's, or a CSV file. Both become a pandas table; nothing is judged here."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.digests import sha256_hex
from edgefleet.errors import ConfigError, InputError
from trainer.project import Project

if TYPE_CHECKING:
    import pandas


def read_table(project: Project) -> "pandas.DataFrame":
    """The source as a pandas table with at least one row.

    Raises:
        ConfigError: The source cannot be found, read or called with its arguments.
        InputError: It has no rows.
    """
    import pandas

    source = project.data.source
    if ":" in source:
        table = _call(project)
        if not isinstance(table, pandas.DataFrame):
            raise ConfigError(f"data.source {source!r} returned {type(table).__name__}, expected a pandas DataFrame")
    else:
        path = project.folder / source
        try:
            # Text columns stay text as written ("01" is not 1); numbers are judged cell by cell by the schema check.
            table = pandas.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as err:
            raise ConfigError(f"data.source: {path} cannot be read as CSV: {err}") from err
    if len(table) == 0:
        raise InputError(f"data.source {source!r} has no rows")
    return table


def _call(project: Project) -> Any:
    source, arguments = project.data.source, project.data.arguments
    module_name, _, function_name = source.partition(":")
    with _import_paths(project.folder):
        try:
            module = _import(project.folder, module_name)
        except ModuleNotFoundError as err:
            if err.name != module_name.partition(".")[0]:
                raise
            raise ConfigError(f"data.source {source!r}: no module {module_name!r} in {project.folder} or beside it") from err
        function = getattr(module, function_name, None)
        if not callable(function):
            raise ConfigError(f"data.source {source!r}: {module_name!r} has no function {function_name!r}")
        try:
            inspect.signature(function).bind(**arguments)
        except TypeError as err:
            raise ConfigError(f"data.arguments do not fit {source!r}: {err}") from err
        try:
            return function(**arguments)
        except ValueError as err:
            raise ConfigError(f"data.source {source!r} refused its arguments {arguments}: {err}") from err


def _import(folder: Path, module_name: str) -> Any:
    file = folder / f"{module_name}.py"
    if not file.is_file():
        return importlib.import_module(module_name)
    # Its own name per folder: two projects may both have a file `rows.py`.
    name = f"_edgefleet_project_{sha256_hex(str(file).encode())[:12]}_{module_name}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _import_paths(folder: Path) -> Iterator[None]:
    """The project folder and its two nearest parents can be imported from, for this moment."""
    before = list(sys.path)
    sys.path[:0] = [str(path) for path in (folder, *list(folder.parents)[:2])]
    try:
        yield
    finally:
        sys.path[:] = before
