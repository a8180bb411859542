"""How figures look, in plotly and in matplotlib: colours, an arm's line, its seeds' curves and their mean."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from r2m.results.readings import mean_curve, trajectories_a_round, trajectory, up_to
from r2m.runs.journal import JournalView

# Okabe and Ito's palette: told apart by colour-blind readers. The arms that the paper compares come first.
COLOURS = {"RLOO": "#D55E00", "R2M": "#0072B2"}
WINNER, *OTHERS = OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REST, INK, GRID = "#8a94a3", "#1d2430", "#e6e9ee"  # other arms; text; lines
SCALE = [[0.0, "#c6dbec"], [0.5, "#56a0d3"], [1.0, "#08427a"]]  # light to dark: read without colours too
THIN, BOLD = 1.0, 2.5  # a seed's line, their mean's
ALARM = "triangle-down"  # the mark
FAINT = 0.3  # how opaque a seed's line is


@dataclass(frozen=True)
class Mark:
    """A place on a run's curve."""

    run: str
    step: int
    x: float
    y: float


@dataclass(frozen=True)
class Group:
    """Runs that are drawn alike: an arm's seeds. `dash`: "solid" or "dash"."""

    label: str
    colour: str
    views: Sequence[JournalView]
    dash: str = "solid"

    def curves(self, metric: str) -> list[dict[int, float]]:
        """Trajectories seen -> value, of each run that has one: arms of another K share these, unlike rounds."""
        found = [
            {step * trajectories_a_round(view): value for step, value in zip(*view.series(metric), strict=True)}
            for view in self.views
        ]
        return [curve for curve in found if curve]

    def alarms(self, metric: str) -> list[Mark]:
        """Where its runs raised the alarm, on their curves: the last round up to it that has the metric."""
        found = [(view, up_to(view, metric, view.alarm["step"])) for view in self.views if view.alarm]
        return [
            Mark(view.run_id, view.alarm["step"], at[0] * trajectories_a_round(view), at[1])
            for view, at in found
            if view.alarm and at
        ]

    def alarms_over_kl(self, metric: str) -> list[Mark]:
        """The same on their trajectories over KL."""
        marks = []
        for view in self.views:
            if view.alarm:
                step = view.alarm["step"]
                points = [point for at, point in trajectory(view, metric).items() if at <= step]
                marks += [Mark(view.run_id, step, *point) for point in points[-1:]]
        return marks

    def mean(self, metric: str) -> dict[int, float]:
        """Where all of its runs that have the metric have a value."""
        return mean_curve(self.curves(metric))


def groups(arms: Iterable[tuple[str, str, Sequence[JournalView]]], winner: bool = False) -> list[Group]:
    """A colour for each arm, given its label, kind and runs: the first RLOO and the first R2M have their own, an arm
    whose colour another one has is dashed. `winner`: the first arm is a search's, which is green."""
    free, others = dict(COLOURS), cycle(OTHERS if winner else OTHER_COLOURS)
    made: list[Group] = []
    for label, kind, views in arms:
        colour = WINNER if winner and not made else free.pop(kind, "") or next(others)
        dash = "dash" if any(group.colour == colour for group in made) else "solid"
        made.append(Group(label, colour, views, dash))
    return made


def drawn(groups: Iterable[Group], metrics: Iterable[str]) -> list[str]:
    """The metrics that any of the runs has."""
    views = [view for group in groups for view in group.views]
    return [key for key in metrics if any(view.series(key)[0] for view in views)]
