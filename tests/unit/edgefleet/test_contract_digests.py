"""Digests are the same whoever computes them, and small content is hashed without loading OpenSSL."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from edgefleet.digests import sha256_file, sha256_hex
file = Path(sys.argv[1])
print(sha256_hex(file.read_bytes()), sha256_file(file), "_hashlib" in sys.modules)
"""


@pytest.mark.parametrize(("size", "loads_openssl"), [(0, False), (1_000, False), (3_000_000, False), (5_000_000, True)])
def test_the_digest_is_that_of_hashlib_and_only_large_content_loads_openssl(tmp_path: Path, size: int, loads_openssl: bool) -> None:
    file = tmp_path / "content"
    file.write_bytes(os.urandom(size))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)], capture_output=True, text=True, timeout=60, env=environment, check=True
    )

    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert done.stdout.split() == [expected, expected, str(loads_openssl)]
