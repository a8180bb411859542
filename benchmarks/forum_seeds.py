"""RLOO and R2M on the embedded task over several seeds: what the reward became, and what it was worth.

    python benchmarks/forum_seeds.py --seeds 5 [--set task.artefact=0 ...] [--storage r2m-runs]

Both arms of a seed share prompts, draws and models, so differences are paired. Intervals are Student's t at 95 %
over the seeds. Runs are kept, with the rest of the storage folder, for `r2m ui`.
"""

import argparse
import statistics
from math import sqrt

from r2m.config import load
from r2m.reports.curves import plot
from r2m.reports.style import groups
from r2m.runs.journal import JournalView
from r2m.training.driver import execute
from r2m.training.start import new_run

T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # by number of seeds
LAST = 5  # rounds that "at the end" is the mean of


def at_end(view: JournalView, key: str) -> float:
    return statistics.mean(view.series(key)[1][-LAST:])


MEASURES = {
    "gold, first round": lambda view: view.series("reward/gold")[1][0],
    "gold, best of 5-round means": lambda view: best(view.series("reward/gold")[1]),
    "gold, end": lambda view: at_end(view, "reward/gold"),
    "held-out gold, end": lambda view: view.series("eval/gold")[1][-1],
    "proxy, end": lambda view: at_end(view, "reward/proxy"),
    "vanilla reward, end": lambda view: at_end(view, "reward/vanilla"),
    "KL, end (nats)": lambda view: at_end(view, "kl/sequence"),
    "words without a space, end": lambda view: at_end(view, "task/no_space_share"),
    "correlation of proxy and gold, end": lambda view: at_end(view, "reward/gold_correlation"),
    "correlation of vanilla reward and gold, end": lambda view: at_end(view, "reward/vanilla_gold_correlation"),
    "best/worst choice agrees with gold, mean": lambda view: mean_of(view, "reward/choice_accuracy"),
    "the same by the vanilla reward": lambda view: mean_of(view, "reward/vanilla_choice_accuracy"),
}


def best(values: list[float]) -> float:
    return max(statistics.mean(values[i : i + LAST]) for i in range(len(values) - LAST + 1))


def mean_of(view: JournalView, key: str) -> float:
    return statistics.mean(value for value in view.series(key)[1] if value == value)


def interval(values: list[float]) -> str:
    half = T_95[len(values)] * statistics.stdev(values) / sqrt(len(values))
    return f"{statistics.mean(values):.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(T_95))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--storage", default="r2m-runs")
    parser.add_argument("--picture", help="file for the curves")
    args = parser.parse_args()
    arms: dict[str, list[JournalView]] = {"RLOO": [], "R2M": []}
    for seed in range(args.seeds):
        runs = []
        for feedback in ("off", "on"):
            common = [*args.set, f"run.seed={seed}", f"run.storage={args.storage}"]
            runs.append(new_run(load("forum", [*common, f"reward.feedback={feedback}"])))
        for views, view in zip(arms.values(), execute(runs), strict=True):
            views.append(view)
    print(f"\n| {args.seeds} seeds: mean ± 95 % | RLOO | R2M | R2M - RLOO |\n|---|---:|---:|---:|")
    for name, measure in MEASURES.items():
        rloo, r2m = ([measure(view) for view in views] for views in arms.values())
        difference = [b - a for a, b in zip(rloo, r2m, strict=True)]
        print(f"| {name} | {interval(rloo)} | {interval(r2m)} | {interval(difference)} |")
    if args.picture:
        plot(groups((arm, arm, views) for arm, views in arms.items()), args.picture)


if __name__ == "__main__":
    main()
