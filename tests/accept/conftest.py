"""What the proofs need of the machine."""

import subprocess

import pytest
from tests.conftest import program


@pytest.fixture(scope="session")
def strace() -> str:
    """Debian's system-call tracer, where the machine lets programs be traced."""
    found = program("strace", "strace")
    tried = subprocess.run(
        [found, "-f", "-qq", "--seccomp-bpf", "-e", "inject=fdatasync:error=EIO", "-o", "/dev/null", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode != 0:
        pytest.skip(f"this machine does not let programs be traced: {tried.stderr.strip()[:200]}")
    return found
