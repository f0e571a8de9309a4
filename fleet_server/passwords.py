"""Mosquitto's password lines: PBKDF2-SHA512, format `$7$iterations$salt$hash`."""

import base64
import hashlib
import os
from typing import Final

ITERATIONS: Final = 101  # Mosquitto's own default; the passwords are 256 random bits, not words


def mosquitto_line(user: str, password: str) -> str:
    """One line of a Mosquitto password file, newline included."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{user}:$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
