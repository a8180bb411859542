"""A process that promotes or rolls back, and dies by SIGKILL right after the first write to MLflow that none before
it had made: called until it dies no more, it has been killed between each two of its writes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = (
    "log_artifacts", "create_registered_model", "create_model_version", "set_model_version_tag",
    "set_registered_model_alias",
)  # fmt: skip


def until_it_lives(log: Path, *arguments: str, between: Callable[[], object] = lambda: None) -> list[list[str]]:
    """What all of the processes have written, in order. `between`: called after each one's death."""
    while killed(log, *arguments):
        between()
    return written(log)


def killed(log: Path, *arguments: str) -> bool:
    """Whether a process has died of something that none before it had written."""
    process = subprocess.run(
        [sys.executable, __file__, str(log), *arguments], capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode != 0


def written(log: Path | str) -> list[list[str]]:
    return [json.loads(line) for line in Path(log).read_text().splitlines()] if Path(log).exists() else []


def dying(log: str) -> None:
    from mlflow import MlflowClient

    def deadly(name: str) -> Any:
        write = getattr(MlflowClient, name)

        def then_die(client: Any, *arguments: Any, **named: Any) -> Any:
            result, line = write(client, *arguments, **named), [name, *map(str, arguments)]
            new = line not in written(log)
            with open(log, "a") as file:
                file.write(json.dumps(line) + "\n")
            if new:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return then_die

    for name in WRITES:
        setattr(MlflowClient, name, deadly(name))


def main(log: str, what: str, uri: str, storage: str, pipeline: str, key: str = "", run: str = "") -> None:
    from r2m.tracking.client import client_of
    from r2m.tracking.registry import promote, rollback

    dying(log)
    if what == "promote":
        folder = Path(storage) / "runs" / run
        models = {"policy": folder / "policy", "reward": folder / "reward"}
        promote(uri, storage, pipeline, key, run, models, ["It is better."])
    else:
        with client_of(uri) as client:
            rollback(client, pipeline)


if __name__ == "__main__":
    main(*sys.argv[1:])
