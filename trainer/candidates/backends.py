"""Where the pieces of a fit run: joblib's backends by name. A model's bytes do not depend on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal

from edgefleet.errors import ConfigError, MissingPartError

Backend = Literal["loky", "threading", "dask", "ray"]


@contextmanager
def parallel(backend: Backend, jobs: int) -> Iterator[None]:
    """Fits inside this context use the backend, at most `jobs` pieces at a time.

    Args:
        backend: `loky` leaves the choice between threads and processes to each estimator, as scikit-learn does; `threading` forces
            threads; `dask` uses the running client of dask.distributed, or starts processes of one thread on this machine; `ray` likewise.
        jobs: At least 1.

    Raises:
        ConfigError: No such backend, or fewer than one job.
        MissingPartError: The backend's library is not installed.
    """
    if jobs < 1:
        raise ConfigError(f"search.jobs = {jobs}: expected at least 1")
    import joblib

    if backend == "loky":
        with joblib.parallel_config(n_jobs=jobs):
            yield
    elif backend == "threading":
        with joblib.parallel_config(backend="threading", n_jobs=jobs):
            yield
    elif backend == "dask":
        with _dask_client(jobs), joblib.parallel_config(backend="dask", n_jobs=jobs):
            yield
    elif backend == "ray":
        _register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=jobs):
            yield
    else:
        raise ConfigError(f"search.backend = {backend!r}: expected loky, threading, dask or ray")


@contextmanager
def _dask_client(jobs: int) -> Iterator[None]:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as err:
        raise MissingPartError('search.backend = "dask" needs dask.distributed: pip install "edgefleet[dask]"') from err
    try:
        distributed.get_client()
    except ValueError:  # no client is connected
        with (
            distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster),
        ):
            yield
    else:
        yield


def _register_ray() -> None:
    try:
        register_ray: Any = import_module("ray.util.joblib").register_ray
    except ImportError as err:
        raise MissingPartError('search.backend = "ray" needs ray: pip install "ray[default]"') from err
    register_ray()
