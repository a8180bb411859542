"""What a sweep has found: the types. r2m.sweeps.answer makes an Answer of a study and its runs' journals."""

from dataclasses import asdict, dataclass
from typing import Any

from r2m.results.alarms import Alarms
from r2m.results.numbers import finite
from r2m.results.readings import KL, mean
from r2m.results.statistics import Estimate
from r2m.results.table import trial_label

LAST = {"kl": KL, "gold": "eval/gold", "vanilla": "eval/vanilla"}  # field of an arm -> the metric, at a run's end


@dataclass(frozen=True)
class Ranked:
    """A row of the ranking, over the sweep's own seeds. NaN: the runs have no such value."""

    name: str  # t003, or a baseline's slug
    label: str  # a baseline's name, else the name
    trial: int | None  # None: a baseline outside the search space
    baseline: bool
    params: dict[str, Any]
    state: str  # complete, pruned, failed, running or waiting
    values: tuple[float, ...]  # an objective each; of a pruned trial those of its last evaluation
    violation: float  # the worst constraint's excess: at most 0 where all are kept
    kl: float  # the last evaluation's, mean over the seeds
    gold: float
    vanilla: float
    trajectories: int
    worker_s: float
    runs: tuple[str, ...]
    command: str | None  # repeats its first run; None where no run can have these settings
    reason: str | None  # why it failed, or the alarm that stopped it
    alarm: Alarms | None = None

    @property
    def tag(self) -> str:
        """The r2m.trial of its runs."""
        return trial_label(self.trial, self.label if self.baseline else None)

    @property
    def in_search(self) -> str:
        """A baseline's label, with its trial's name where it is one."""
        return f"{self.label} ({self.name})" if self.baseline and self.trial is not None else self.label

    @property
    def feasible(self) -> bool:
        return self.violation <= 0


@dataclass(frozen=True)
class Confirmed:
    """An arm on fresh seeds, its finished runs only. `values`: seed -> the first objective.

    `violation` is as an arm's; 0 where no run has finished: nothing is known to be broken. `failed`: the seeds that
    will never have a value, since their run failed or its objective is not finite. `runs`: seed -> name, of all that
    there are.
    """

    arm: str
    label: str
    values: dict[int, float]
    kl: float
    gold: float
    vanilla: float
    violation: float
    failed: tuple[int, ...]
    runs: dict[int, str]
    alarm: Alarms | None = None  # of all its runs

    @property
    def mean(self) -> float:
        return mean(self.values.values())


@dataclass(frozen=True)
class Against:
    """Winner against a baseline on the seeds that both have. `difference` is positive where the winner is better."""

    arm: str  # the baseline's
    label: str
    difference: Estimate
    kl: tuple[float, float]  # the winner's and the baseline's on those seeds
    finding: str  # one of statistics.FINDINGS


@dataclass(frozen=True)
class Spent:
    runs: dict[str, int]  # status -> number of runs, confirmation included
    trajectories: int
    worker_hours: float
    wall_hours: float | None


@dataclass(frozen=True)
class Answer:
    name: str
    objectives: tuple[str, ...]  # the metrics, with the KL at which they are taken if they are
    directions: tuple[str, ...]
    constraints: tuple[str, ...]
    search: bool  # False: the sweep runs its baselines and nothing else
    seeds: tuple[int, ...]
    confirm: tuple[int, ...]
    ranking: tuple[Ranked, ...]
    front: tuple[str, ...]  # arms on the Pareto front, best first objective first; () with a single objective
    winner: str | None  # an arm
    confirmation: tuple[Confirmed, ...]  # the winner's first
    comparisons: tuple[Against, ...]
    verdict: tuple[str, ...]  # sentences; the first is the headline
    importance: dict[str, float]
    importance_note: str | None  # why there is none, or what to mind
    spent: Spent

    def arm(self, name: str) -> Ranked:
        return next(arm for arm in self.ranking if arm.name == name)

    def to_json(self) -> dict[str, Any]:
        """A tree for json.dumps(allow_nan=False): a number that is not finite is null."""
        tree = asdict(self)
        for row, arm in zip(tree["ranking"], self.ranking, strict=True):
            row["feasible"] = arm.feasible
        for row in tree["confirmation"]:
            del row["runs"]
        return finite(tree)
