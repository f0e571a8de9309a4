"""The HTTP door as a whole: settings checked, secrets read, application and server put together."""

from device_agent.doors.http.access import check_access, is_loopback, read_token, tls_context
from device_agent.doors.http.application import Application, Surroundings
from device_agent.doors.http.counters import Counts
from device_agent.doors.http.rows import Models
from device_agent.doors.http.server import HttpServer
from device_agent.doors.http.settings import HttpSettings


class HttpDoor:
    """Listens from the moment it is made, answers once started.

    Args:
        models: Who answers rows.
        settings: Where and for whom.
        surroundings: Version of the running model and facts for the page.

    Attributes:
        url: Where it is reached.

    Raises:
        ConfigError: The settings are not safe, a file of them is not usable, or the address is taken.
    """

    def __init__(self, models: Models, settings: HttpSettings, surroundings: Surroundings | None = None) -> None:
        check_access(settings)
        token = None if settings.token_file is None else read_token(settings.token_file)
        tls = None if settings.tls_cert is None or settings.tls_key is None else tls_context(settings.tls_cert, settings.tls_key)
        local_only = tls is None and is_loopback(settings.host)
        self._application = Application(models, settings.limits, token, local_only, surroundings)
        self._server = HttpServer(self._application, settings.host, settings.port, settings.limits, tls)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{'http' if tls is None else 'https'}://{host}:{self._server.port}"

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._server.start()

    @property
    def alive(self) -> bool:
        """Whether newcomers are still taken."""
        return self._server.alive

    def counts(self) -> Counts:
        """What was counted until now."""
        return self._application.counters.now()

    def close(self) -> None:
        """Stop: requests that are being answered end, the rest is closed."""
        self._server.close()
