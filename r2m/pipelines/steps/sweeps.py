"""sweep: a search, from a sweep file; and what all steps share that run sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from r2m.config import Count, Section
from r2m.config.load import read_mapping
from r2m.config.paths import absolute
from r2m.config.types import Place
from r2m.errors import UserError
from r2m.files import write_whole
from r2m.pipelines.contents import Contents
from r2m.pipelines.work import PENDING_PATH, Kind, StepOutputs, StoppedStepError, Where, Work
from r2m.runs.folder import JOURNAL
from r2m.sweeps.driver import run_sweep
from r2m.sweeps.room import plan_of
from r2m.sweeps.schema import Sweep
from r2m.sweeps.spec import load_sweep
from r2m.sweeps.sweep import Opened, answer_of, extra_settings, new_sweep, open_sweep, runs_of, status_of


class SweepStep(Section):
    """`file`: a sweep file. `set`: settings that take the place of its own, or are added; not of a Python file."""

    file: Annotated[Place, AfterValidator(absolute)]
    set: dict[str, Any] = Field({})
    workers: Count | None = None

    _sweep: Sweep = PrivateAttr()

    @model_validator(mode="after")
    def _checked(self) -> SweepStep:
        if self.file.endswith(".py"):
            if self.set:
                raise ValueError(f"set: not of a Python file, {self.file!r}: it is code")
            self._sweep = load_sweep(self.file, self.workers)
        else:
            self._sweep = Sweep.model_validate(self.tree)
        if self._sweep.budget.trials == 0:
            raise ValueError(f"file = {self.file!r}: it searches nothing; for arms alone there is train")
        return self

    @property
    def sweep(self) -> Sweep:
        return self._sweep

    @property
    def tree(self) -> dict[str, Any]:
        """Of the file, with `set`. Raises UserError."""
        tree = read_mapping(Path(self.file), f"file = {self.file!r}", "with recipe, parameters and objectives")
        workers = {} if self.workers is None else {"run.workers": self.workers}
        return tree | {"set": tree.get("set", {}) | self.set | workers}


def fits(sweep: Sweep, where: Where) -> None:
    """Raises UserError, with the arithmetic, where its runs have no room: on this machine, or on its disk. What a
    cluster has room for is seen there."""
    if where.address is None and not _waits(sweep):
        plan_of(sweep, extra_settings(where.storage, where.tracking_uri), None).check_disk(where.storage)


def finish_sweep(name: str, file: Path, work: Work, workers: int | None = None) -> Opened:
    """A sweep of that name, begun where there is none, gone on with where there is one, to its end.

    Raises StoppedStepError where it was asked to stop, and as `run_sweep`.
    """
    if (Path(work.storage) / "sweeps" / name / JOURNAL).is_file():
        opened = open_sweep(work.storage, name)
    else:
        opened = new_sweep(str(file), name, work.storage, workers, work.tracking_uri, work.progress)
    if status_of(opened) == "finished":
        return opened
    _, finished = run_sweep(opened, work.address, told=work.progress)
    if not finished:
        raise StoppedStepError(f"the sweep {name} was stopped, with checkpoints")
    return opened


def _waits(sweep: Sweep) -> bool:
    """Whether it is of models that another step has yet to make."""
    base = sweep.base
    names = (base.policy.model, base.reward.model, base.run.judge)
    return PENDING_PATH in names


def _determines(step: SweepStep, contents: Contents) -> Any:
    own = contents.place(step.file) if step.file.endswith(".py") else None
    return [own, step.sweep.model_dump(mode="json", exclude={"set", "recipe"}), contents.config(step.sweep.base)]


def _search(step: SweepStep, work: Work) -> StepOutputs:
    file = Path(step.file)
    if file.suffix != ".py":
        file = work.kept / "sweep.yaml"
        write_whole(file, yaml.safe_dump(step.tree, sort_keys=False, allow_unicode=True))
    opened = finish_sweep(work.name, file, work, step.workers if file.suffix == ".py" else None)
    answer = answer_of(opened, opened.study_to_read(), runs_of(opened))
    write_whole(work.folder / "answer.json", (opened.folder / "answer.json").read_text(encoding="utf-8"))
    if answer.winner is None:
        raise UserError(f"{opened.name}: {answer.verdict[0]}")
    best = next(trial for trial in answer.ranking if trial.name == answer.winner)
    confirmed = [name for name, view in runs_of(opened).items()
                 if view.tags["r2m.role"] == "confirm" and view.status == "finished"]  # fmt: skip
    settings = best.params | opened.sweep.equal_cost(best.params)
    return {
        "sweeps": [opened.name], "runs": confirmed, "answer": str(work.folder / "answer.json"),
        "settings": {key: value for key, value in settings.items() if not key.startswith("run.")},
    }  # fmt: skip


def _takes(step: SweepStep, where: Where) -> str:
    return f"at most {step.sweep.most_runs} runs"


SWEEP = Kind(
    SweepStep, {"sweeps": "runs", "runs": "runs", "answer": "file", "settings": "settings"}, 1, _determines,
    lambda step, where: fits(step.sweep, where), _search, _takes, whole=True,
)  # fmt: skip
