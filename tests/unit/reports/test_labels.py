"""Each number stands under its own label: runs whose metrics all differ, read back from pages, pictures and tables.

What a label has to say is a word or two, so that it may be worded better; which number it stands over is exact.
"""

import re

import pytest
from made_paper import MadePaper, cost
from made_runs import MadeRuns
from made_sweep import MadeSweep
from pages import Page, grids

from r2m.metrics import METRICS
from r2m.paper.claims import judge_all
from r2m.paper.tables import tables
from r2m.reports.compare_page import compare_html, compare_terminal
from r2m.reports.curves import STYLE, plot
from r2m.reports.paper_page import paper_html
from r2m.reports.style import groups
from r2m.reports.sweep_page import sweep_html
from r2m.reports.sweep_tables import ranking_table
from r2m.reports.table import runs_table
from r2m.results.comparison import compare_runs

WORDS = {  # of a figure's title and of its axis
    "reward/proxy": ("proxy|in training", "score|reward"),
    "reward/vanilla": ("vanilla", "score"),
    "reward/gold": ("gold", "gold"),
    "reward/gold_correlation": ("correlation.*gold", "pearson"),
    "kl/sequence": ("KL", "nats.*sequence"),
    "kl/token": ("KL.*token", ""),
    "train/policy_loss": ("loss", ""),
    "task/no_space_share": ("space", "share"),
    "eval/gold": ("gold.*held-out", "gold"),
    "eval/win_rate": ("win rate.*held-out", "share"),
    "eval/vanilla": ("vanilla.*held-out", "score"),
    "eval/kl_sequence": ("KL.*held-out", "nats.*sequence"),
}
LABELS = {  # of a column
    "eval/gold": "gold", "eval/win_rate": "win rate", "eval/vanilla": "vanilla", "eval/kl_sequence": r"KL\b.*",
    "eval/response_tokens": "tokens", "worker_s": r"worker\W*s.*",
}  # fmt: skip
TRAINED = tuple(key for key in WORDS if not key.startswith("eval/"))
HELD_OUT = ("eval/gold", "eval/win_rate", "eval/vanilla", "eval/kl_sequence", "eval/response_tokens")
FIELDS = (*TRAINED, *HELD_OUT)
ROUNDS = (1, 2, 4)


def value(key: str, step: int) -> float:
    """Another one of each metric, and of each round."""
    return FIELDS.index(key) + 1 + step / 8


def a_run(runs: MadeRuns, name: str = "a", settings: tuple[str, ...] = ()):
    return runs.run(name, *[[value(key, t) for key in FIELDS] for t in ROUNDS], fields=FIELDS, settings=settings)


def compared(runs: MadeRuns):
    a_run(runs)
    (comparison,), notes = compare_runs(runs.results())
    return comparison, Page(compare_html("runs", [comparison], notes))


def assert_panels(panels, keys, arm: str, at=ROUNDS) -> None:
    """Each panel holds the metric that its title and its axis say."""
    assert len(panels) == len(keys)
    for panel, key in zip(panels, keys, strict=True):
        title, unit = WORDS[key]
        assert re.search(title, panel.title, re.I), (key, panel.title)
        assert re.search(unit, panel.y, re.I), (key, panel.y)
        assert list(panel.traces[arm][1]) == [value(key, t) for t in at]


def by_title(panels, keys):
    """The keys in the order of the panels, by what these hold."""
    held = {tuple(y): panel.title for panel in panels for _, y in panel.traces.values()}
    return [key for y in held for key in keys if list(y) == [value(key, t) for t in ROUNDS]]


def test_the_columns_of_a_comparison(runs: MadeRuns) -> None:
    comparison, page = compared(runs)
    means, *_ = grids(compare_terminal(comparison))
    table = page.table("runs", "vanilla")
    for key, heading in LABELS.items():
        expected = 9.0 if key == "worker_s" else value(key, 4)  # three rounds of 2 s, three evaluations of 1 s
        assert table.number("RLOO", under=f"^{heading}$") == pytest.approx(expected, abs=0.005), key
        if key != "eval/response_tokens":
            assert means.number("RLOO", under=f"^{heading}$") == pytest.approx(expected, abs=0.05), key


@pytest.mark.parametrize(("plot_key", "count"), [("training-0", 4), ("held-out-0", 4), ("reward-kl-0", 3)])
def test_the_panels_of_a_comparison(runs: MadeRuns, plot_key: str, count: int) -> None:
    panels = compared(runs)[1].drawings[plot_key]
    keys = by_title(panels, FIELDS)
    assert len(keys) == count
    assert_panels(panels, keys, "RLOO")
    if plot_key.startswith("reward-kl"):
        for panel in panels:
            assert re.search("KL.*nats.*sequence", panel.x)
            assert panel.traces["RLOO"][0] == [value("kl/sequence", t) for t in ROUNDS]
    else:
        assert all(panel.x == "trajectories" for panel in panels)


def test_the_columns_and_panels_of_a_sweep(tmp_path) -> None:
    made = MadeSweep(tmp_path, baselines={"RLOO": {"reward.feedback": False}}, confirm=[100])
    made.trial(0.25, (0.5, 10.0, 2.0), (0.75, 11.0, 3.0), omega=0.125)
    made.confirm("t000", {"reward.alpha": 0.25, "reward.omega_min": 0.125}, (0.625, 12.0, 4.0))
    a = made.answer()
    page = Page(sweep_html(a, made.study, made.views, made.text))
    ranking = page.table("state", "alpha")
    expected = {
        "eval/gold": 0.75, r"KL\b.*": 11, "vanilla": 3, "reward.alpha": 0.25, "reward.omega_min": 0.125,
        "trajectories": 16, r"worker s.*": 6,
    }  # fmt: skip
    assert {h: ranking.number("R2M|t000", under=f"^{h}$") for h in expected} == expected
    assert page.table("seed 100").number("R2M|t000", under=r"^KL\b") == 12
    assert page.table("seed 100").number("R2M|t000", under="^vanilla") == 4
    tree = ranking_table(a)
    row = dict(zip(tree["columns"], next(r for r in tree["data"] if r[1] == "t000"), strict=True))
    assert [row[key] for key in ("eval/gold", "kl", "vanilla", "trajectories", "worker_s")] == [0.75, 11, 3, 16, 6]
    (gold, vanilla) = page.drawings["reward-kl"]
    label = next(iter(key for key in gold.traces if key.startswith(("t000", "R2M")) and key != "R2M"), "t000")
    for panel, title, y in ((gold, "gold", 0.75), (vanilla, "vanilla", 3.0)):
        assert re.search(title, panel.title, re.I)
        assert panel.traces[label] == ([11.0], [y])
        assert re.search("KL.*nats", panel.x)
    learning = page.drawings["learning"]
    for panel, (title, y) in zip(learning, (("gold", 0.625), ("vanilla", 4.0), ("KL", 12.0)), strict=True):
        assert re.search(title, panel.title, re.I)
        assert panel.traces[label][1] == [y]


def test_the_panels_of_a_picture(runs: MadeRuns, tmp_path, monkeypatch) -> None:
    """Each metric has its own number of rounds, by which its curve is known."""
    keys = [key for key in TRAINED if key not in ("kl/token", "train/policy_loss")]
    view = a_run(runs)
    view.rounds.clear()
    for i, key in enumerate(keys):
        for step in range(i + 2):
            view.rounds.setdefault(step, {})[key] = float(step)
    monkeypatch.setitem(STYLE, "svg.fonttype", "none")
    plot(groups([("RLOO", "RLOO", [view])]), tmp_path / "curves.svg")
    axes = re.split(r'<g id="axes_\d+">', (tmp_path / "curves.svg").read_text())[1:]
    lengths = {}
    for part in axes:
        texts = " | ".join(re.findall(r">([^<>]*)</text>", part))
        (curve,) = {d for d in re.findall(r'<path d="([^"]+)"[^>]*clip-path[^>]*style="[^"]*stroke: #d55e00', part)}
        lengths[len(re.findall("[ML]", curve))] = texts
    assert len(lengths) == len(keys)
    for i, key in enumerate(keys):
        for word in WORDS[key]:
            assert re.search(word, lengths[i + 2], re.I), (key, lengths[i + 2])


def test_the_columns_of_a_summary(runs: MadeRuns) -> None:
    table = runs_table([a_run(runs)])
    ((_, row),) = table.rows
    found = dict(zip(table.head, row, strict=True))
    for key, label in (("reward/proxy", "proxy"), ("reward/vanilla", "vanilla"), ("reward/gold", "gold"),
                       ("kl/sequence", "KL"), ("task/no_space_share", "space")):  # fmt: skip
        (cell,) = [cell for heading, cell in found.items() if label in heading]
        last = cell.split("→")[-1]
        number = float(last.rstrip("%")) / (100 if "%" in last else 1)
        assert number == pytest.approx(value(key, 4), abs=0.051), key


def test_the_figures_of_the_paper(made: MadePaper) -> None:
    for key in ("R2M", "RLOO"):
        made.run(key, 0, *[{k: value(k, t) for k in TRAINED} | {
            "eval/proxy": 20.0 + t, "eval/vanilla": 30.0 + t, "eval/noise": 40.0 + t,
        } for t in ROUNDS])  # fmt: skip
    r = made.results(1, cost=cost())
    page = Page(paper_html(r, tables(r), judge_all(r), "r2m paper"))
    learning = page.drawings["learning"]
    keys = by_title(learning, TRAINED)
    assert set(keys) == {"reward/proxy", "train/policy_loss", "kl/token", "kl/sequence"}
    assert_panels(learning, keys, "R2M")
    reward, gold = page.drawings["reward-kl"]
    for panel, key, word in ((reward, "reward/proxy", "reward"), (gold, "reward/gold", "gold")):
        assert re.search(word, panel.title, re.I)
        assert panel.traces["R2M"] == ([value("kl/sequence", t) for t in ROUNDS], [value(key, t) for t in ROUNDS])
        assert re.search("KL.*sequence", panel.x)
    assert not re.search("gold", reward.title, re.I)
    (conditions,) = page.drawings["conditions"]
    heights = {name: y[0] for name, (_, y) in conditions.traces.items()}
    (with_noise,) = [y for name, y in heights.items() if "noise" in name]
    (without,) = [y for name, y in heights.items() if "without" in name]
    (full,) = [y for name, y in heights.items() if re.fullmatch("with feedback", name)]
    assert (full, without, with_noise) == (21, 31, 41)
    memory, seconds = page.drawings["cost"]
    assert re.search("memory", memory.title)
    assert re.search("time", seconds.title, re.I)
    assert (memory.y, seconds.y) == ("MiB", "s")
    assert memory.traces[""][1] == [100, 104]
    bars = {name: y[0] for name, (_, y) in seconds.traces.items() if name}
    for word, expected in (("sampl", 0.1), ("annot", 0.1), ("policy", 0.29), ("head", 0.01)):
        (bar,) = [y for name, y in bars.items() if word in name]
        assert bar == pytest.approx(expected), word


def test_the_tables_of_the_paper(made: MadePaper) -> None:
    """What was measured, and what the paper prints, of R2M or RLOO, by the last words of a heading."""
    for seed in range(2):
        for arm in ("R2M", "RLOO", "R2M, noise"):
            made.run(arm, seed, {"reward/proxy": 1.0})
            shift = 0.1 * (arm == "R2M")
            made.assess(
                arm, seed, rate=0.4 + shift, controlled=0.3 + 2.5 * shift, over_references=0.25, gold=0.625,
                characters=57.0, no_space=0.125, accuracies=((0.71, 0.72, 0.73), (0.61, 0.62, 0.63)),
                similarity=(0.67, 0.76, 0.45),
            )  # fmt: skip
    r = made.results(2)
    page = Page(paper_html(r, tables(r), judge_all(r), "r2m paper"))
    alike = page.table("within hacking", "across")
    for word, expected in (("within hacking", 0.67), ("within normal", 0.76), ("across", 0.45)):
        assert alike.number("RLOO.*policies", under=f"^measured.*{word}") == expected
        assert alike.number("RLOO.*alone", under=f"^measured.*{word}") == pytest.approx(expected - 0.1)
    methods = page.table("measured: LC", "TL;DR")
    expected = {"LC": 55, "WR": 50, "length": 57, "gold": 0.62}
    assert {h: methods.number("R2M", under=f"^measured: {h}") for h in expected} == expected
    assert methods.number("RLOO", under="^measured: LC") == 30
    assert methods.number("RLOO", under="^measured: WR") == 40
    printed = {"Qwen.*LC": 21.9, "Qwen.*WR": 26.0, "Qwen.*length": 3174, "LLaMA.*LC": 28.4, "LLaMA.*WR": 30.2,
               "LLaMA.*length": 2186, "TL;DR.*WR": 75.3}  # fmt: skip
    assert {h: methods.number("RLOO", under=h) for h in printed} == printed
    accuracy = page.table("reward model", "UltraFeedback")
    for label, shift in (("without feedback", 0), (".*before training", 1), (".*after training", 2)):
        for pairs, low in (("supervised policy", 71), ("trained policy", 61)):
            assert accuracy.number(label, under=f"^measured.*{pairs}") == low + shift
    assert accuracy.number(".*before training", under="Qwen") == 68.3
    assert accuracy.number(".*before training", under="LLaMA") == 69.2
    collapse = page.table("words without a space", "Pythia-1B")
    expected = {"measured: WR": 25, "gold": 0.62, "words without a space": 12.5, "Pythia-1B": 8.7}
    assert {h: collapse.number("RLOO", under=h) for h in expected} == expected
    ablations = page.table("measured: Δ", "measured: LC")
    cells = dict(zip(ablations.head, ablations.rows[ablations.row("RLOO")], strict=False))
    assert cells["measured: LC, %"].startswith("30")
    deltas = [ablations.rows[ablations.row("RLOO")][i].split()[0]
              for i, heading in enumerate(ablations.head) if heading == "measured: Δ"]  # fmt: skip
    assert deltas == ["−25.0", "−10.0", "0.00"]  # LC, WR, gold


SPOKEN = {  # by a metric's name: what its label and its title have to speak of
    "proxy": "proxy", "proxy_std": "std|spread", "vanilla": "vanilla", "greedy": "greedy", "gold": "gold",
    "gold_correlation": "proxy.*gold", "vanilla_gold_correlation": "vanilla.*gold",
    "choice_accuracy": "right choices|by proxy", "vanilla_choice_accuracy": "vanilla",
    "policy_loss": "policy loss", "clip_fraction": "clip", "ratio_error_first_minibatch": "ratio",
    "entropy": "entropy", "grad_norm": "gradient", "lr": "rate", "advantage_std": "advantage",
    "token": "token", "response_tokens": "token|length", "greedy_tokens": "greedy", "no_eos_share": "end",
    "log_prob_error": "log-prob|sampler", "unique_share": "distinct", "bt": "BT|bradley", "gre": "GRE|entropy",
    "loss": "loss", "omega": "ω", "no_space_share": "space", "coverage": "coverage|facts",
    "invented": "invented|not say", "win_rate": "win rate", "noise": "noise", "kl_sequence": "KL",
    "sample_s": "sampling", "annotate_s": "annotat", "policy_s": "policy", "head_s": "head", "eval_s": "evaluat",
    "round_s": "round", "sampled_tokens_per_s": "sampled", "trained_tokens_per_s": "trained", "best": "best",
    "trial": "trial", "worker_hours": "hours",
}  # fmt: skip
NATS = (
    "kl/",
    "eval/kl",
    "sweep/kl",
    "signal/kl",
    "head/bt",
    "head/gre",
    "head/anchor",
    "train/entropy",
    "rollout/log_prob",
)


@pytest.mark.parametrize("key", METRICS)
def test_a_metrics_label_title_and_unit_speak_of_it(key: str) -> None:
    """So that two of a phase whose labels are exchanged do not pass."""
    m = METRICS[key]
    for text in (m.label, m.title):
        assert re.search(SPOKEN.get(key.split("/")[1], ""), text, re.I)
    assert m.unit.startswith("nats") == key.startswith(NATS)
    assert (m.unit == "s") == (key.startswith("time/"))
    assert ("share" in m.unit) == bool(
        re.search("share|(?<!kl_)rate$|above_seen|fraction|accuracy|coverage|omega", key)
    )
    assert m.unit.startswith("gold") == key.endswith("/gold")
    assert m.unit.startswith("tokens") == bool(re.search("_tokens$|tokens_per_s$", key))
