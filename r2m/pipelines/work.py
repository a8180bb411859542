"""What a kind of step is, and what a step is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r2m.config import Section
from r2m.stages.progress import Progress, silent

if TYPE_CHECKING:
    from r2m.pipelines.contents import Contents

# folder, file: in the step's product; runs: a list of names; settings: by dotted key; text: a name.
Sort = Literal["folder", "file", "runs", "settings", "text"]
StepOutputs = dict[str, Any]
PENDING_PATH = "/pending"  # of what a step has not made yet


@dataclass(frozen=True)
class Where:
    """Of a pipeline's steps: the storage (absolute), MLflow's address (None: SQLite in the storage), Ray's (None:
    this machine)."""

    storage: str
    tracking_uri: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Work(Where):
    """One step's. `name`: of the runs and sweeps that it makes, the same whenever it is gone on with. `folder`: for
    its product, new and empty; it is kept whole, or not at all. `kept`: for what a killed attempt leaves to the next
    one. `made_by`: the step's run. `again`: whether all of it is to be made anew, though some may be there.
    """

    name: str = ""
    key: str = ""
    folder: Path = Path()
    kept: Path = Path()
    pipeline: str = ""
    made_by: str = ""
    again: bool = False
    progress: Progress = silent


class StoppedStepError(Exception):
    """A step was asked to stop, and can be gone on with."""


@dataclass(frozen=True)
class Kind:
    """`determines`: the tree of what the result depends on, with contents in the place of paths and names; its
    digest, with the version, is the step's key. `check`: raises UserError for settings that could not run, before
    anything does; what other steps make needn't be there yet. `takes`: what it will take, in a few words.

    `version` is raised whenever the code gives another result for the same settings. `whole`: whether it takes all of
    the machine, or of the cluster. `own`: whether its result is its pipeline's, and no other's of the same settings.
    """

    settings: type[Section]
    outputs: Mapping[str, Sort]
    version: int
    determines: Callable[[Any, Contents], Any]
    check: Callable[[Any, Where], None]
    run: Callable[[Any, Work], StepOutputs]
    takes: Callable[[Any, Where], str] = lambda settings, where: ""
    whole: bool = False
    own: bool = False
