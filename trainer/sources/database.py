"""A database through SQLAlchemy: one query with bound parameters. No password ever reaches a message."""

import os
from typing import TYPE_CHECKING, Final

from edgefleet.errors import ConfigError, InputError, MissingPartError
from trainer.project import Project

if TYPE_CHECKING:
    import pandas
    import sqlalchemy

ROWS_AT_A_TIME: Final = 50_000
_VARIABLE: Final = "env:"


def is_database(source: str) -> bool:
    """Whether `data.source` is a SQLAlchemy URL, or names the variable that holds one."""
    return "://" in source or source.startswith(_VARIABLE)


def read_database(project: Project) -> "pandas.DataFrame":
    """What `data.query` selects, with `data.arguments` as bound parameters.

    Raises:
        ConfigError: The URL, the connection or the query fails.
        InputError: Two columns of the answer have the same name.
        MissingPartError: SQLAlchemy or the database's driver is not installed.
    """
    try:
        import sqlalchemy
    except ModuleNotFoundError as err:
        raise MissingPartError("data.source needs sqlalchemy, which is not installed: pip install 'edgefleet[server]'") from err
    import pandas

    url = _url(project)
    shown = url.render_as_string(hide_password=True)
    try:
        engine = sqlalchemy.create_engine(url)
    except ModuleNotFoundError as err:
        raise MissingPartError(f"data.source {shown} needs the driver {err.name}, which is not installed: pip install {err.name}") from err
    except sqlalchemy.exc.ArgumentError as err:
        raise ConfigError(f"data.source {shown} names no known database: {err}") from err
    try:
        with engine.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(sqlalchemy.text(project.data.query), project.data.arguments)
            names = list(result.keys())
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"data.query selects two columns named {twice[0]!r}; rename one with AS")
            blocks = [pandas.DataFrame.from_records(list(part), columns=names) for part in result.partitions(ROWS_AT_A_TIME)]
    except sqlalchemy.exc.SQLAlchemyError as err:
        raise ConfigError(f"data.query on {shown} failed: {_reason(err, url)}") from err
    finally:
        engine.dispose()
    filled = [block for block in blocks if len(block)]
    return pandas.concat(filled, ignore_index=True) if filled else pandas.DataFrame(columns=names)


def _url(project: Project) -> "sqlalchemy.URL":
    import sqlalchemy

    text = project.data.source
    if text.startswith(_VARIABLE):
        variable = text.removeprefix(_VARIABLE)
        if not (text := os.environ.get(variable, "")):
            raise ConfigError(f"data.source: the environment variable {variable!r} is not set; it must hold the database's URL")
    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # Without the cause: its message holds the URL, and so the password.
        raise ConfigError("data.source is no database URL; expected dialect://user:password@host/database") from None
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        path = project.folder / url.database
        if not path.is_file():  # SQLite would make an empty one
            raise ConfigError(f"data.source: no SQLite file {path}")
        url = url.set(database=str(path))
    return url


def _reason(err: Exception, url: "sqlalchemy.URL") -> str:
    text = " ".join(str(getattr(err, "orig", None) or err).split())[:300]
    return text.replace(url.password, "***") if url.password else text
