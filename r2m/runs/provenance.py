"""What a run ran on: versions and commit. No paths of the machine and no environment variables (secrets)."""

import contextlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in ("r2m", "torch", "transformers", "ray", "mlflow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def git_state(source: Path = Path(__file__)) -> dict[str, Any]:
    """`commit` of the checkout that tracks the source file, `dirty` if its tree differs from it.

    {} outside a checkout (r2m installed from a wheel), before the first commit, or without git.
    """

    def git(*args: str) -> str:
        command = ["git", "-C", str(source.parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    try:
        git("ls-files", "--error-unmatch", source.name)  # an environment may lie in someone else's checkout
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}
