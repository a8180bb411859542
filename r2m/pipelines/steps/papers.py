"""paper: the paper's experiment section from runs, as `r2m paper` has it."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from r2m.config import Config, Count, Section, digest
from r2m.config.load import override
from r2m.paper.arms import ARMS
from r2m.paper.claims import judge_all
from r2m.paper.run import Asked, collect, open_sweeps, run_sweeps
from r2m.paper.tables import tables
from r2m.pipelines.contents import Contents
from r2m.pipelines.steps.recipes import absolute_recipe, recipe_config
from r2m.pipelines.work import Kind, StepOutputs, StoppedStepError, Where, Work
from r2m.reports.paper_page import write


class PaperStep(Section):
    recipe: Annotated[str, AfterValidator(absolute_recipe)] = "forum"
    set: dict[str, Any] = Field({})
    seeds: Annotated[Count, Field(le=10_000)] = 5  # runs of each arm
    workers: Count | None = None

    @model_validator(mode="after")
    def _checked(self) -> PaperStep:
        _ = self.base
        return self

    @property
    def base(self) -> Config:
        """Raises UserError."""
        return recipe_config(self.recipe, self.set)


def _determines(step: PaperStep, contents: Contents) -> Any:
    return [contents.config(step.base), step.seeds, step.workers, ARMS]


def _paper(step: PaperStep, work: Work) -> StepOutputs:
    from rich.console import Console

    # Without the seeds: with more of them, those that are there are gone on with.
    own = digest([step.model_dump(mode="json", exclude={"seeds"}), step.base.digest()])[:6]
    settings = tuple(override(key, value) for key, value in step.set.items())
    name = f"{work.pipeline}-{own}"
    asked = Asked(step.recipe, step.seeds, work.storage, name, settings, step.workers, work.address)
    opened = open_sweeps(asked, work.progress)
    if not run_sweeps(opened, work.address, Console(stderr=True, markup=False), work.progress):
        raise StoppedStepError("the paper's runs were stopped, with checkpoints")
    results = collect(asked, opened, work.progress)
    write(results, tables(results), judge_all(results), asked.folder, f"r2m paper {asked.words}")
    page = work.folder / "paper.html"
    shutil.copyfile(asked.folder / "paper.html", page)
    runs = [view.run_id for arm in results.arms.values() for view in arm.runs]
    return {"page": str(page), "runs": runs, "sweeps": [each.name for each in opened]}


def _takes(step: PaperStep, where: Where) -> str:
    return f"at most {len(ARMS) * step.seeds} runs"


PAPER = Kind(
    PaperStep,
    {"page": "file", "runs": "runs", "sweeps": "runs"},
    1,
    _determines,
    lambda step, where: None,
    _paper,
    _takes,
    whole=True,
)
