"""What the tests need of the machine: file systems of their own, and a network of their own."""

import subprocess
import sys

import pytest


def can(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(
    not can("unshare", "-m", "true"), reason="needs a mount namespace (root, and unshare)"
)
needs_no_network = pytest.mark.skipif(
    not can("unshare", "-n", "true"), reason="needs a network namespace (root, and unshare)"
)
needs_dev_full = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


def in_mounts(script: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run a shell script whose mounts are its own and end with it."""
    command = ["unshare", "-m", "sh", "-ec", script, "sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
