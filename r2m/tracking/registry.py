"""MLflow's model registry: a pipeline's policies that were promoted, each with its reward model, and which of them is
the champion.

`r2m.NAME.policy` and `r2m.NAME.reward` have a version for each promotion, found again by its key in their tags. The
policy's alias is what counts: it moves last, and the reward model of a policy is the one of the same promotion. So a
process that is killed anywhere leaves the old champion or the new one, and who repeats the call does what is missing.
The policy's version says which one was the champion before it, and, once its alias has been moved, that it was: from
then on the same promotion never moves it again, whoever rolled back meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from r2m.errors import UserError
from r2m.files import locked
from r2m.runs.folder import run_folder
from r2m.tracking.client import plain_client
from r2m.tracking.mlflow_sink import Sink
from r2m.tracking.pages import every_page

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.entities import PagedList

ModelPart = Literal["policy", "reward"]
ALIAS = "champion"
KEY, RUN, BEFORE, PROMOTED = "r2m.promotion", "r2m.run", "r2m.before", "r2m.promoted"  # tags of versions
NO_CHAMPION = "none"  # BEFORE of the first one
UPLOAD_S = 900  # in which a server answers that has been sent a file: it may have to pass it on


@dataclass(frozen=True)
class Champion:
    """A version of a pipeline's policy that is, or was, its champion. `run`: the training run that it is of; `key`:
    of its promotion; `mlflow_run`: the id of the run that has the models among its artifacts; `before`: the version
    that was the champion before it, None of the first one."""

    pipeline: str
    version: str
    run: str
    key: str
    mlflow_run: str
    before: str | None

    @property
    def name(self) -> str:
        return f"version {self.version} of {registered_name(self.pipeline, 'policy')} (run {self.run or 'unknown'})"

    def artifact(self, part: ModelPart) -> str:
        return artifact_folder(self.key, part)


def registered_name(pipeline: str, part: ModelPart) -> str:
    return f"r2m.{pipeline}.{part}"


def artifact_folder(key: str, part: ModelPart) -> str:
    """Of a promoted run, in its artifacts: a folder for each promotion, so that none is written over another's."""
    return f"promoted/{key}/{part}"


def registry_lock(storage: str, pipeline: str) -> AbstractContextManager[None]:
    """Held by who moves the alias: one process of this machine at a time."""
    return locked(Path(storage) / "pipelines" / f".{pipeline}.registry.lock")


def promote(
    tracking_uri: str, storage: str, pipeline: str, key: str, run: str, models: Mapping[ModelPart, Path],
    sentences: Sequence[str] = (),
) -> tuple[Champion, bool]:  # fmt: skip
    """Register a run's models and make them the champion; whether they are that now: of a promotion that was done
    before, somebody may have rolled back since. `models`: folders. `sentences`: why, for the version's description.

    What MLflow, its database or the network raise passes through: call again to go on from there.
    """
    sink = Sink(tracking_uri, run_folder(storage, run))
    sink.ship()
    client = plain_client(tracking_uri)
    with registry_lock(storage, pipeline):
        for part in ("reward", "policy"):
            name = registered_name(pipeline, part)
            _aliases(client, name, create=True)
            if _of_promotion(client, name, key) is None:
                with _patient():
                    client.log_artifacts(sink.mlflow_run, str(models[part]), artifact_folder(key, part))
                source = f"runs:/{sink.mlflow_run}/{artifact_folder(key, part)}"
                tags = {KEY: key, RUN: run, "r2m.pipeline": pipeline}
                client.create_model_version(name, source, sink.mlflow_run, tags, description="\n\n".join(sentences))
        name = registered_name(pipeline, "policy")
        mine = _of_promotion(client, name, key)
        assert mine is not None, "it was there, or has just been made"
        now = _aliases(client, name).get(ALIAS)
        if PROMOTED not in mine.tags:
            if now != str(mine.version):
                client.set_model_version_tag(name, mine.version, BEFORE, now or NO_CHAMPION)
                _point(client, pipeline, str(mine.version), key)
                now = str(mine.version)
            _mark(client, name, now)
        return _champion(client, pipeline, str(mine.version)), now == str(mine.version)


def champion(client: MlflowClient, pipeline: str) -> Champion | None:
    """None where a pipeline has none."""
    version = _aliases(client, registered_name(pipeline, "policy")).get(ALIAS)
    return None if version is None else _champion(client, pipeline, version)


def rollback(client: MlflowClient, pipeline: str) -> tuple[Champion, Champion]:
    """The champion before this one is it again. Returns the one that was, and the one that is.

    Raises UserError where there is no champion, none before it, or the one before it was deleted.
    """
    name = registered_name(pipeline, "policy")
    now = champion(client, pipeline)
    if now is None:
        raise UserError(no_champion(client, pipeline))
    if now.before is None:
        raise UserError(f"--rollback: {now.name} is the first champion of {pipeline}: there is none before it")
    there = {str(v.version): v for v in every_page(lambda token: _search(client, f"name = '{name}'", token))}
    if now.before not in there:
        raise UserError(f"--rollback: version {now.before} of {name}, the champion before this one, was deleted")
    _mark(client, name, now.version)  # its promotion may have been killed before it could say so
    _point(client, pipeline, now.before, there[now.before].tags.get(KEY, ""))
    return now, _champion(client, pipeline, now.before)


def no_champion(client: MlflowClient, pipeline: str) -> str:
    """What is said of a pipeline without one."""
    return f"NAME = {pipeline!r}: it has no champion; pipelines with one: {', '.join(champions(client)) or 'none'}"


def champions(client: MlflowClient) -> list[str]:
    """The pipelines that have one."""
    first, last = registered_name("\0", "policy").split("\0")
    found = every_page(
        lambda token: client.search_registered_models(f"name LIKE '{first}%{last}'", page_token=token)
    )  # fmt: skip
    return sorted(model.name.removeprefix(first).removesuffix(last) for model in found if ALIAS in model.aliases)


def fetched(client: MlflowClient, of: Champion, part: ModelPart, to: Path) -> Path:
    """A champion's policy or reward model as a folder: where MLflow keeps it on this machine, else in `to`."""
    uri = client.get_run(of.mlflow_run).info.artifact_uri
    here = uri.startswith(("/", "file:"))
    return Path(client.download_artifacts(of.mlflow_run, of.artifact(part), None if here else str(to)))


def _point(client: MlflowClient, pipeline: str, version: str, key: str) -> None:
    """Move the alias to a version of the policy: first the reward model's, to that of the same promotion."""
    name = registered_name(pipeline, "reward")
    reward = _of_promotion(client, name, key)
    if reward is not None and _aliases(client, name).get(ALIAS) != str(reward.version):
        client.set_registered_model_alias(name, ALIAS, str(reward.version))
    client.set_registered_model_alias(registered_name(pipeline, "policy"), ALIAS, version)


def _mark(client: MlflowClient, name: str, version: str) -> None:
    """That it has been the champion."""
    if PROMOTED not in client.get_model_version(name, version).tags:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        client.set_model_version_tag(name, version, PROMOTED, now)


def _aliases(client: MlflowClient, name: str, create: bool = False) -> dict[str, str]:
    """Alias -> version; none where there is no such model, which is made if `create`."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    if create:
        client.create_registered_model(name)
    return {}


def _of_promotion(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """The version of that key; of several, which two machines at once might make, the first."""
    found = every_page(lambda token: _search(client, f"name = '{name}' and tags.`{KEY}` = '{key}'", token))
    return min(found, key=lambda version: int(version.version), default=None)


def _search(client: MlflowClient, what: str, token: str | None) -> PagedList[ModelVersion]:
    return client.search_model_versions(what, page_token=token)


def _champion(client: MlflowClient, pipeline: str, version: str) -> Champion:
    found = client.get_model_version(registered_name(pipeline, "policy"), version)
    before = found.tags.get(BEFORE, NO_CHAMPION)
    return Champion(
        pipeline, version, found.tags.get(RUN, ""), found.tags.get(KEY, ""), found.run_id or "",
        None if before == NO_CHAMPION else before,
    )  # fmt: skip


@contextmanager
def _patient() -> Iterator[None]:
    """Requests that wait for as long as it takes to store a model's file, not for the 10 s of all others."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    os.environ[name] = str(max(UPLOAD_S, int(before or 0)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
