"""Where does R2M help? RLOO and R2M over reward models that are wrong in different ways, at matched KL.

    python benchmarks/forum_map.py [--storage r2m-map] [--seeds 5] [--trials 8] [--picture docs/forum_map.png]

Every reward model of a grid (artefact in the preference data × label noise × width relative to the policy's) is
trained; on each, RLOO and R2M as the recipe has it run on the same seeds. On the grid's centre and its neighbours
both are tuned by searches of equal budget, RLOO over the policy's learning rate and β, R2M over these and its own
α, Ω and the head's learning rate, and the winners run on fresh seeds. All of it is sweeps, which go on where they
were stopped, by the same command. It prints the tables of docs/findings.md and draws the picture.

Gold at matched KL is gold on held-out prompts where held-out KL first reaches 4 nats, which all but a few runs reach;
the end is where the same number of trajectories is spent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from r2m.config import load, override
from r2m.results.statistics import Estimate, paired_difference
from r2m.runs.journal import JournalView
from r2m.stages.prepare import prepare
from r2m.sweeps.cost import setting
from r2m.sweeps.driver import run_sweep
from r2m.sweeps.objective import Objective, value_of
from r2m.sweeps.sweep import Opened, new_sweep, open_sweep, runs_of, status_of

ARTEFACTS, NOISES, WIDTHS = (0.0, 0.25, 0.5), (0.05, 0.3), (64, 128, 256)
TUNED = [  # the centre, and its neighbours along each axis
    (0.25, 0.05, 128), (0.0, 0.05, 128), (0.5, 0.05, 128), (0.25, 0.3, 128), (0.25, 0.05, 64), (0.25, 0.05, 256),
]  # fmt: skip
KL = 4.0  # nats per sequence
GOLD = {"at KL 4": Objective(metric="eval/gold", matched_kl=KL), "at the end": Objective(metric="eval/gold")}
FIXED = {"algorithm.queries": 16, "algorithm.rounds": 30, "algorithm.lr": 3e-4}
FRESH = 1000  # the first seed of the tuned arms' runs
OF_POLICY: dict[str, Any] = {
    "algorithm.lr": {"loguniform": [2e-4, 8e-4]},
    "algorithm.beta": {"loguniform": [0.005, 0.05]},
}
OF_HEAD: dict[str, Any] = {
    "reward.alpha": {"uniform": [0, 1]},
    "reward.omega_min": {"uniform": [0, 0.9]},
    "reward.lr": {"loguniform": [1e-5, 1e-2]},
}
ARMS = {"RLOO": (False, OF_POLICY), "R2M": (True, OF_POLICY | OF_HEAD)}

Point = tuple[float, float, int]


class Row(NamedTuple):
    """R2M against RLOO on the seeds of both."""

    point: Point
    means: dict[str, tuple[float, float]]  # where gold is taken -> RLOO's and R2M's
    differences: dict[str, Estimate]
    kl: tuple[float, float]  # at the end, nats
    lost_spaces: tuple[float, float]  # at the end, share of words


def settings(point: Point) -> dict[str, Any]:
    return dict(zip(("task.artefact", "task.label_noise", "task.reward_width"), point, strict=True))


def name_of(point: Point, arm: str = "") -> str:
    artefact, noise, width = point
    return "-".join(["map", f"a{artefact:g}", f"n{noise:g}", f"w{width}", *([arm.lower()] if arm else [])])


def default_file(point: Point, seeds: int) -> dict[str, Any]:
    """Both arms as the recipe has them."""
    return {
        "recipe": "forum",
        "set": FIXED | settings(point),
        "objectives": [GOLD["at KL 4"].model_dump()],
        "budget": {"trials": 0, "evaluations": 15},
        "baselines": {arm: {"reward.feedback": on} for arm, (on, _) in ARMS.items()},
        "seeds": list(range(seeds)),
        "confirm": [],
    }


def tuned_file(point: Point, arm: str, trials: int, seeds: int) -> dict[str, Any]:
    """A search for one arm; its first trial has the recipe's own settings."""
    on, parameters = ARMS[arm]
    fixed = FIXED | settings(point) | {"reward.feedback": on}
    recipe = load("forum", [override(key, value) for key, value in fixed.items()])
    return {
        "recipe": "forum",
        "set": {key: value for key, value in fixed.items() if key not in parameters},
        "parameters": parameters,
        "objectives": [GOLD["at KL 4"].model_dump()],
        "constraints": [{"metric": "eval/kl_sequence", "min": KL}],  # else a policy that stays put would win
        "budget": {"trials": trials, "evaluations": 15},
        "baselines": {},
        "enqueue": [{key: setting(recipe, key) for key in parameters}],
        "confirm": list(range(FRESH, FRESH + seeds)),
    }


def run(name: str, tree: Mapping[str, Any], storage: str) -> Opened:
    """The sweep of that name, finished."""
    if (Path(storage) / "sweeps" / name / "journal.jsonl").is_file():
        opened = open_sweep(storage, name)
    else:
        with TemporaryDirectory() as folder:
            file = Path(folder, f"{name}.yaml")
            file.write_text(yaml.safe_dump(dict(tree), sort_keys=False))
            opened = new_sweep(str(file), name, storage)
    if status_of(opened) != "finished":
        _, finished = run_sweep(opened)
        if not finished:
            raise SystemExit(130)
    return opened


def train_reward_model(point: Point, storage: str) -> None:
    own = {"run.storage": storage} | settings(point)
    prepare(load("forum", [override(key, value) for key, value in own.items()]))


def by_seed(views: Iterable[JournalView]) -> dict[int, JournalView]:
    return {view.start["config"]["run"]["seed"]: view for view in views if view.status == "finished"}


def compared(point: Point, rloo: Mapping[int, JournalView], r2m: Mapping[int, JournalView]) -> Row:
    pairs = [(rloo[seed], r2m[seed]) for seed in sorted(rloo.keys() & r2m.keys())]

    def ends(key: str) -> tuple[float, float]:
        return tuple(sum(arm.series(key)[1][-1] for arm in arms) / len(pairs) for arms in zip(*pairs, strict=True))

    means, differences = {}, {}
    for where, objective in GOLD.items():
        a, b = ([value_of(view, objective) for view in arms] for arms in zip(*pairs, strict=True))
        means[where] = (sum(a) / len(a), sum(b) / len(b))
        differences[where] = paired_difference(b, a)
    return Row(point, means, differences, ends("eval/kl_sequence"), ends("task/no_space_share"))


def default_row(opened: Opened, point: Point) -> Row:
    views = runs_of(opened).values()
    return compared(point, *(by_seed(v for v in views if v.arm == arm) for arm in ARMS))


def tuned_row(opened: Mapping[str, Opened], point: Point) -> Row | None:
    """None where no trial of an arm reaches the KL."""
    fresh = {
        arm: {s: v for s, v in by_seed(runs_of(sweep).values()).items() if s >= FRESH}
        for arm, sweep in opened.items()
    }
    return compared(point, fresh["RLOO"], fresh["R2M"]) if all(fresh.values()) else None


def table(rows: Iterable[Row]) -> str:
    heads = ["artefact", "label noise", "width", *ARMS, "R2M − RLOO at KL 4", "finding", "at the end", "finding"]
    heads += ["KL, end", "no spaces, end"]
    lines = [heads, ["---:"] * len(heads)]
    for row in rows:
        artefact, noise, width = row.point
        cells = [f"{artefact:g}", f"{noise:g}", f"{width / 128:g}×", *(f"{x:.2f}" for x in row.means["at KL 4"])]
        for difference in row.differences.values():
            cells += [shown(difference), difference.finding]
        cells += ["{:.1f}, {:.1f}".format(*row.kl), "{:.0%}, {:.0%}".format(*row.lost_spaces)]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("-0.", "−0.")


def shown(d: Estimate) -> str:
    low, high = d.interval or (math.nan, math.nan)
    return f"{d.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def draw(defaults: list[Row], tuned: list[Row], path: str) -> None:
    """Above the map of the defaults, a cell a reward model; below the tuned arms' differences and intervals."""
    import matplotlib
    from matplotlib.figure import Figure

    from r2m.reports.curves import STYLE
    from r2m.reports.style import COLOURS

    most = max(abs(row.differences[where].mean) for row in defaults for where in GOLD)
    by_point = {row.point: row for row in defaults}
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11, 7.2), layout="constrained", dpi=150)
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
        axes = above.subplots(1, 2 * len(WIDTHS), sharey=True)
        for i, (where, width) in enumerate(product(GOLD, WIDTHS)):
            cells = [[by_point[a, n, width].differences[where] for n in NOISES] for a in ARTEFACTS]
            image = axes[i].imshow([[c.mean for c in line] for line in cells], cmap="PuOr", vmin=-most, vmax=most)
            for (y, line), x in product(enumerate(cells), range(len(NOISES))):
                mark = {"better": "\n▲", "worse": "\n▼"}.get(line[x].finding, "")
                dark = abs(line[x].mean) > 0.6 * most
                axes[i].text(x, y, f"{line[x].mean:+.2f}{mark}".replace("-", "−"), ha="center", va="center",
                             color="white" if dark else "black")  # fmt: skip
            axes[i].set(xticks=range(len(NOISES)), xticklabels=NOISES, yticks=range(len(ARTEFACTS)),
                        yticklabels=ARTEFACTS, xlabel="label noise")  # fmt: skip
            axes[i].set_title(f"{where}\nreward model {width / 128:g}×")
        axes[0].set_ylabel("artefact")
        above.colorbar(image, ax=axes, label="gold: R2M − RLOO", shrink=0.9)
        above.suptitle("As the recipe has them; ▲ better, ▼ worse", fontsize=11, x=0.01, ha="left")
        below.suptitle("Both tuned by searches of equal budget, on fresh seeds", fontsize=11, x=0.01, ha="left")
        for ax, where in zip(below.subplots(1, len(GOLD), sharey=True), GOLD, strict=True):
            for y, row in enumerate(tuned):
                d = row.differences[where]
                low, high = d.interval or (d.mean, d.mean)
                ax.plot([low, high], [y, y], color=COLOURS["R2M"], linewidth=2.2)
                ax.plot(d.mean, y, "o", color=COLOURS["R2M"])
            ax.axvline(0, color="#888888", linewidth=0.8)
            labels = [f"artefact {a:g}, noise {n:g}, {w / 128:g}×" for a, n, w in (row.point for row in tuned)]
            ax.set(yticks=range(len(tuned)), yticklabels=labels, xlabel="gold: R2M − RLOO, 95 % interval")
            ax.set_title(f"Gold {where}")
            ax.set_ylim(len(tuned) - 0.5, -0.5)
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="r2m-map")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=8, help="of each arm's search")
    parser.add_argument("--picture")
    args = parser.parse_args()
    points = list(product(ARTEFACTS, NOISES, WIDTHS))
    # The supervised policy and the bases of other widths first: the reward models' trainings would wait for them.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(train_reward_model, points, [args.storage] * len(points)))
    defaults = [default_row(run(name_of(p), default_file(p, args.seeds), args.storage), p) for p in points]
    print(table(defaults), flush=True)
    tuned = []
    for point in TUNED:
        sweeps = {
            arm: run(name_of(point, arm), tuned_file(point, arm, args.trials, args.seeds), args.storage)
            for arm in ARMS
        }
        row = tuned_row(sweeps, point)
        if row is None:
            print(f"{name_of(point)}: no trial of an arm reaches {KL:g} nats", flush=True)
            continue
        tuned.append(row)
    print(table(tuned))
    if args.picture:
        draw(defaults, tuned, args.picture)


if __name__ == "__main__":
    main()
