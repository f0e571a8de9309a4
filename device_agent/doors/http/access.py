"""Who may ask: this machine without ado, others only over TLS and with a token. Secrets come from files, never from arguments."""

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from device_agent.doors.http.settings import HttpSettings
from edgefleet.errors import ConfigError

if TYPE_CHECKING:  # OpenSSL takes 5 MB, which a door without TLS does not need
    import ssl

MIN_TOKEN_CHARACTERS: Final = 16
MAX_TOKEN_BYTES: Final = 4096


def check_access(settings: HttpSettings) -> None:
    """Refuse to be open to other machines without certificate, key and token.

    Raises:
        ConfigError: What is missing, and what to do.
    """
    if not 0 <= settings.port <= 65_535:
        raise ConfigError(f"HTTP port {settings.port} is out of range, expected 0 to 65535")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given, missing = ("certificate", "--http-tls-key") if settings.tls_key is None else ("key", "--http-tls-cert")
        raise ConfigError(f"TLS has a {given} only; give {missing} too")
    if is_loopback(settings.host):
        return
    wanted = {"--http-tls-cert": settings.tls_cert, "--http-tls-key": settings.tls_key, "--http-token-file": settings.token_file}
    missing_options = [option for option, value in wanted.items() if value is None]
    if missing_options:
        raise ConfigError(
            f"HTTP on {settings.host} can be reached from other machines and needs {', '.join(missing_options)}; "
            "give them, or listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name other than localhost may point anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path) -> bytes:
    """The bearer token in a file, without the line's end.

    Raises:
        ConfigError: Not readable, too short, too long, or not printable ASCII.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_TOKEN_BYTES + 1)
    except OSError as err:
        raise ConfigError(f"token file {path}: {err.strerror}; write a random token into it: openssl rand -hex 32") from err
    token = content.strip()
    if len(content) > MAX_TOKEN_BYTES or len(token) < MIN_TOKEN_CHARACTERS or not all(0x21 <= byte <= 0x7E for byte in token):
        raise ConfigError(
            f"token file {path}: {len(token)} bytes are no token of {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_BYTES} printable characters "
            "without spaces; make one: openssl rand -hex 32"
        )
    return token


def tls_context(cert: Path, key: Path) -> "ssl.SSLContext":
    """A server's context, TLS 1.2 or newer.

    Raises:
        ConfigError: Not readable, not a pair, or an encrypted key.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as err:
        raise ConfigError(f"TLS certificate {cert} with key {key}: {str(err)[:200]}; both must be PEM, the key not encrypted") from err
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL would ask the terminal
