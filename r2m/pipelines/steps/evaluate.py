"""evaluate: finished runs assessed by what took no part in their training."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from pydantic import Field

from r2m.config import Count, Section
from r2m.errors import UserError
from r2m.evaluation.assess_all import assess_all
from r2m.files import write_whole
from r2m.pipelines.contents import Contents
from r2m.pipelines.work import Kind, StepOutputs, Work
from r2m.results.numbers import finite

RunNames = Annotated[list[str], Field(min_length=1)]


class EvaluateStep(Section):
    """`prompts`: the first held-out ones only; null: all of them."""

    runs: RunNames
    prompts: Count | None = None


def _determines(step: EvaluateStep, contents: Contents) -> object:
    return [[contents.run(name) for name in step.runs], step.prompts]


def _evaluate(step: EvaluateStep, work: Work) -> StepOutputs:
    names = list(dict.fromkeys(step.runs))
    found = assess_all(work.storage, names, step.prompts, work.address, work.progress)
    known = {name: a for name, a in found.items() if not isinstance(a, str)}
    if missing := {name: why for name, why in found.items() if isinstance(why, str)}:
        raise UserError(f"runs: {len(missing)} of {len(names)} cannot be assessed: {next(iter(missing.values()))}")
    table = {
        name: {"arm": a.arm, "seed": a.seed, "prompts": a.prompts, "means": a.means,
               "win_rates": [asdict(rate) for rate in a.win_rates]}
        for name, a in known.items()
    }  # fmt: skip
    file = work.folder / "assessments.json"
    write_whole(file, json.dumps(finite(table), indent=1, allow_nan=False))
    return {"runs": names, "assessments": str(file)}


EVALUATE = Kind(
    EvaluateStep, {"runs": "runs", "assessments": "file"}, 1, _determines, lambda step, where: None, _evaluate,
    lambda step, where: f"{len(step.runs)} runs",
)  # fmt: skip
