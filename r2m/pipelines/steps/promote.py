"""promote: an arm's policy, with its reward model, becomes the champion where the stated conditions hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from r2m.config import Section
from r2m.config.paths import absolute
from r2m.config.types import Name, Place
from r2m.config.uris import sqlite_path
from r2m.errors import UserError
from r2m.files import made_whole, write_whole
from r2m.models.adapters import holds_adapters, whole_model
from r2m.pipelines.contents import Contents
from r2m.pipelines.gate import ChampionRate, candidate, decide
from r2m.pipelines.steps.evaluate import RunNames
from r2m.pipelines.when import When
from r2m.pipelines.work import Kind, StepOutputs, Work
from r2m.runs.folder import run_folder
from r2m.tracking.client import plain_client
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.tracking.registry import Champion, ModelPart, champion, fetched, promote

DECISION, VERDICTS = "decision.json", "verdicts.jsonl"
NO_JUDGE = "no judge took no part in training: neither gold nor run.judge nor run.judge_url is there"
UNASKED = "there is no run of it to hold against it"


class PromoteStep(Section):
    """`comparison`: of a compare step's outputs. `runs`: that it compares. `arm`: as the comparison calls it."""

    comparison: Annotated[Place, AfterValidator(absolute)]
    runs: RunNames
    arm: Name
    when: When

    @model_validator(mode="after")
    def _of_two(self) -> PromoteStep:
        if self.when.difference is not None and self.when.difference.over == self.arm:
            raise ValueError(f"when.difference.over = {self.arm!r}: it is the arm itself")
        return self


def verdict_of(outputs: StepOutputs) -> dict[str, Any]:
    """Of such a step's, for an execution's journal: text, promoted, and conditions, each whether it holds and its
    sentence."""
    tree = json.loads(Path(outputs["decision"]).read_text(encoding="utf-8"))
    since = " It was rolled back before this was done." if tree.get("stands") is False else ""
    conditions = [[of["held"], of["sentence"]] for of in tree["conditions"]]
    return {"text": tree["verdict"] + since, "promoted": tree["promote"], "conditions": conditions}


def _determines(step: PromoteStep, contents: Contents) -> Any:
    runs = [contents.run(name) for name in step.runs]
    return [contents.place(step.comparison), runs, step.arm, step.when.model_dump(mode="json")]


def _promote(step: PromoteStep, work: Work) -> StepOutputs:
    uri = work.tracking_uri or default_tracking_uri(work.storage)
    decided = work.kept / DECISION  # once it is there it stands: what follows changes what it was made of
    if not decided.is_file():
        write_whole(decided, json.dumps(_decision(step, work, uri), indent=1, allow_nan=False))
    tree = json.loads(decided.read_text(encoding="utf-8"))
    if tree["promote"]:
        said = [tree["verdict"], *(of["sentence"] for of in tree["conditions"])]
        models = _models(work, tree["run"])
        models["policy"] = _lasting(models["policy"], work.kept / "merged")
        now, stands = promote(uri, work.storage, work.pipeline, work.name, tree["run"], models, said)
        tree |= {"version": now.version, "stands": stands}
    file = work.folder / DECISION
    write_whole(file, json.dumps(tree, indent=1, allow_nan=False))
    return {"decision": str(file), "verdict": tree["verdict"]}


def _decision(step: PromoteStep, work: Work, uri: str) -> dict[str, Any]:
    """`champion`: the one that there was."""
    try:
        comparison = json.loads(Path(step.comparison).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"comparison = {step.comparison!r}: not a comparison ({error})") from None
    run = candidate(comparison, step.arm, step.when)
    if run is not None:
        if run not in step.runs:
            raise UserError(f"runs: {run}, which the comparison has, is not one of them")
        _models(work, run)
    rival = _rival(uri, work)
    rate = None
    if rival is not None:
        wanted = run is not None and run != rival.run and step.when.champion_win_rate is not None
        rate = _rate(run, rival, uri, work) if wanted and run else ChampionRate(rival.name, rival.run, None, UNASKED)
    found = decide(comparison, step.arm, step.when, rate)
    return asdict(found) | {"arm": step.arm, "champion": None if rival is None else asdict(rival)}


def _rival(uri: str, work: Work) -> Champion | None:
    database = sqlite_path(uri)
    if database is not None and not database.is_file():
        return None
    return champion(plain_client(uri), work.pipeline)


def _rate(run: str, rival: Champion, uri: str, work: Work) -> ChampionRate:
    from r2m.evaluation.champion import rate_against

    to = work.kept / "champion"
    to.mkdir(exist_ok=True)
    policy = fetched(plain_client(uri), rival, "policy", to)
    wins = rate_against(work.storage, run, policy, rival.name, work.kept / VERDICTS, work.progress)
    return ChampionRate(rival.name, rival.run, wins, "" if wins else NO_JUDGE)


def _models(work: Work, run: str) -> dict[ModelPart, Path]:
    """The folders of a run's policy and reward model. Raises UserError where they are gone."""
    folder = run_folder(work.storage, run)
    if not all((folder / part).is_dir() for part in ("policy", "reward")):
        raise UserError(f"runs: {run}: its models are gone; a finished sweep keeps those of arms and winners")
    return {"policy": folder / "policy", "reward": folder / "reward"}


def _lasting(policy: Path, merged: Path) -> Path:
    """The policy itself; of adapters to a model in a folder, which may go before the champion does, both in one."""
    if not holds_adapters(str(policy)) or not Path(whole_model(str(policy), "policy")).is_absolute():
        return policy
    if not merged.is_dir():
        from r2m.models.loading import load_config, load_tokenizer
        from r2m.models.saving import save_model
        from r2m.policy.loading import load_policy

        dtype = str(load_config(str(policy)).dtype or "float32").removeprefix("torch.")
        with made_whole(merged) as aside:
            save_model(aside, load_policy(str(policy), dtype), load_tokenizer(str(policy)))
    return merged


PROMOTE = Kind(
    PromoteStep, {"decision": "file", "verdict": "text"}, 1, _determines, lambda step, where: None, _promote,
    own=True,
)  # fmt: skip
