"""Runs with models, and what MLflow's registry has of them."""

from pathlib import Path

from made_runs import MadeRuns
from mlflow import MlflowClient

from r2m.tracking.registry import ALIAS, Champion, promote, registered_name


def trained(storage: Path, run: str) -> Path:
    """A finished run whose policy and reward model are a few bytes that name it; its folder."""
    MadeRuns(storage).run(run, (0.5, 1.0, 1.0))
    folder = storage / "runs" / run
    for part in ("policy", "reward"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(f"{part} of {run}")
    (folder / "reward" / "feedback_head.safetensors").write_bytes(b"head of " + run.encode())
    return folder


def promoted(
    uri: str, storage: Path, run: str, key: str | None = None, pipeline: str = "nightly"
) -> tuple[Champion, bool]:
    folder = storage / "runs" / run
    models = {"policy": folder / "policy", "reward": folder / "reward"}
    return promote(uri, str(storage), pipeline, key or f"key-{run}", run, models, ["R2M is better."])


def registered(uri: str, pipeline: str = "nightly") -> dict[str, tuple[int, str | None]]:
    """Part -> the number of its versions, and which one is the champion."""
    client = MlflowClient(uri)
    found = {}
    for part in ("policy", "reward"):
        name = registered_name(pipeline, part)
        versions = client.search_model_versions(f"name = '{name}'")
        alias = client.get_registered_model(name).aliases.get(ALIAS)
        found[part] = (len(versions), None if alias is None else str(alias))
    return found
