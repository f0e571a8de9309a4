"""A Python function of the user's that returns a pandas table: `module:function`, the module beside project.toml or installed."""

import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgefleet.digests import canonical_json, sha256_file, sha256_hex
from edgefleet.errors import ConfigError
from trainer.project import Project

if TYPE_CHECKING:
    import pandas

MAX_FOLDER_FILES: Final = 10_000


def call_function(project: Project) -> "pandas.DataFrame":
    """What `data.source` returns for `data.arguments`.

    Raises:
        ConfigError: No such module or function, arguments that do not fit, a ValueError inside, or no table returned.
    """
    import pandas

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
            table = function(**arguments)
        except (ValueError, OSError) as err:
            raise ConfigError(f"data.source {source!r} refused its arguments {arguments}: {err}") from err
    if not isinstance(table, pandas.DataFrame):
        raise ConfigError(f"data.source {source!r} returned {type(table).__name__}, expected a pandas DataFrame")
    if not table.columns.is_unique:
        raise ConfigError(f"data.source {source!r} returned two columns named {table.columns[table.columns.duplicated()][0]!r}; rename one")
    return table.reset_index(drop=True)


def function_fingerprint(project: Project) -> str | None:
    """Sha256 of the Python files beside the function's module and of what its arguments name; None: it cannot be known without a call.

    A file counts by its bytes; a folder by the names, sizes and times of change of all files below it, at most MAX_FOLDER_FILES.
    """
    module_name = project.data.source.partition(":")[0]
    with _import_paths(project.folder):
        try:
            spec = importlib.util.find_spec(module_name)
        except (ImportError, ValueError):
            return None
    local = project.folder / f"{module_name}.py"
    origin = local if local.is_file() else Path(spec.origin) if spec is not None and spec.origin else None
    if origin is None or not origin.is_file():
        return None
    named = [project.folder / value for value in _texts(project.data.arguments) if value and "\0" not in value]
    files = [*sorted(origin.parent.glob("*.py")), *(path for path in named if path.is_file())]
    below = [listed for path in named if path.is_dir() for listed in _listing(path)]
    if len(below) > MAX_FOLDER_FILES:
        return None
    return sha256_hex(canonical_json([[path.name, sha256_file(path)] for path in files] + below))


def _texts(value: Any) -> Iterator[str]:
    """The texts in an argument, those in lists and tables too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


def _listing(folder: Path) -> list[list[Any]]:
    """[name, size in bytes, time of change in ns] of the files below a folder, one more than counts where there are more."""
    some = itertools.islice((path for path in folder.rglob("*") if path.is_file()), MAX_FOLDER_FILES + 1)
    return sorted([str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in some)


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
