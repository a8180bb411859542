"""Sweeps on a real Ray cluster of this machine: their answer, two workers a trial, processes that are killed.

What a run must come to, whatever happens to its sweep, is what the worker loop alone gives in this process.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from pages import CHROMIUM, drawn_plots
from processes import (
    R2M,
    alive,
    assert_same_rounds,
    command_of,
    descendants,
    end_of,
    free_port,
    has_open,
    kill_all,
    r2m,
    shipped,
    states,
    steady,
    undisturbed,
    wait_for,
)

from r2m.config import load, validate
from r2m.reports.sweep_notes import escaped
from r2m.runs.journal import JournalReader, read
from r2m.sweeps.driver import run_sweep
from r2m.sweeps.sweep import PICTURES, Opened, open_sweep, runs_of
from r2m.training.loop import run_loop
from r2m.training.start import new_run

MakeSweep = Callable[..., Opened]
SweepFile = Callable[..., str]


def test_a_sweep_over_the_heads_and_the_policys_settings(
    ray_cluster: None, make_sweep: MakeSweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """α, Ω, K and both learning rates: ranked, confirmed, shipped, and each trial repeated by its command."""
    opened = make_sweep(
        baselines={"RLOO": {"reward.feedback": False}, "half": {"reward.omega_min": 0.5}},
        enqueue=[{"reward.alpha": 0.25, "reward.omega_min": 0.5, "reward.lr": 1e-3,
                  "algorithm.responses": 3, "algorithm.lr": 1e-3}],
        budget={"trials": 5, "evaluations": 2, "concurrent": 2},
    )  # fmt: skip
    answer, finished = run_sweep(opened)
    said = capfd.readouterr().err
    assert finished
    views = runs_of(opened)
    assert {view.status for view in views.values()} == {"finished"}
    trials = opened.study().get_trials()
    assert states(opened) == {"COMPLETE": 5}
    assert trials[0].user_attrs["baseline"] == "half"  # inside the space: a trial, not a run beside it
    assert trials[1].params["reward.alpha"] == 0.25
    won = answer.winner
    expected = {f"tiny-t{n:03d}-s0" for n in range(5)} | {"tiny-rloo-s0"}
    expected |= {f"tiny-{arm}-s{seed}" for arm in ("rloo", "t000", won) for seed in (10, 11)}
    assert set(views) == expected

    for trial in trials:
        view = views[f"tiny-t{trial.number:03d}-s0"]
        assert trial.value == view.series("eval/gold")[1][-1]
        config = validate(view.start["config"])
        spent = config.algorithm.total_rounds * config.algorithm.queries * config.algorithm.responses
        assert 64 - 16 < spent <= 64
        assert config.reward.omega_min == trial.params["reward.omega_min"]

    commands = [line[line.index("r2m train") :] for line in said.splitlines() if "r2m train" in line]
    assert len(commands) == len(views)
    words = shlex.split(next(c for c in commands if "responses=3" in c))
    assert words[:2] == ["r2m", "train"]
    overrides = [*words[4::2], f"run.storage={tmp_path / 'again'}"]
    run = new_run(load(words[2], overrides), "again")
    run_loop(run.config, run.folder, run.models)
    assert steady(read(run.journal)) in [steady(view) for view in views.values()]

    parent, children = shipped(opened)
    assert set(children) == expected
    assert children["tiny-rloo-s10"].data.tags["r2m.role"] == "confirm"
    client = MlflowClient(opened.tracking_uri)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files >= {"sweep.yaml", "report.html", "ranking.json", "answer.png"}
    history = client.get_metric_history(parent.info.run_id, "sweep/best")
    assert max(point.value for point in history) == max(trial.value for trial in trials)
    assert [p.value for p in client.get_metric_history(parent.info.run_id, "sweep/trial")] != []
    known = json.loads((opened.folder / "answer.json").read_text())
    assert known["winner"] == won
    assert_optuna_dashboard_opens(opened)
    if CHROMIUM is not None:  # without it, tests/unit/reports/test_sweep_page.py says that it is missing
        drawn, _ = drawn_plots(opened.folder / "report.html", tmp_path / "profile")
        assert drawn.keys() == {"history", "importance", "parallel", "slice", "learning", "reward-kl"}
        assert all(drawn.values()), drawn


def assert_optuna_dashboard_opens(opened: Opened) -> None:
    port = free_port()
    program = str(Path(R2M).with_name("optuna-dashboard"))
    server = subprocess.Popen(
        [program, "--port", str(port), opened.database, "--artifact-dir", str(opened.folder / PICTURES)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def answered(path: str = "/api/studies") -> Any:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as page:
                    return page.read()
            except OSError:
                return None

        wait_for(answered, server)
        (study,) = json.loads(answered())["study_summaries"]
        assert study["study_name"] == opened.name
        shown = json.loads(answered(f"/api/studies/{study['study_id']}"))
        known = json.loads((opened.folder / "answer.json").read_text())
        assert shown["note"]["body"].startswith(f"**{escaped(known['verdict'][0])}**")
        assert shown["trials"]
        for trial in shown["trials"]:
            (address,) = re.findall(r"!\[curves\]\((.*)\)", trial["note"]["body"])
            assert answered(address).startswith(b"\x89PNG")
    finally:
        server.terminate()
        server.wait()


def test_two_workers_a_trial(ray_cluster: None, make_sweep: MakeSweep, tmp_path: Path) -> None:
    """Nested Ray Train workers come to what one worker in the Tune process comes to, also if one is killed."""
    opened = make_sweep(
        "algorithm.rounds=24", "run.checkpoint_every=2",
        workers=2,
        parameters={"reward.alpha": {"uniform": [0, 1]}},
        budget={"trials": 1, "evaluations": 2, "concurrent": 1},
        baselines={},
        confirm=[10],
    )  # fmt: skip
    journal = opened.folder.parents[1] / "runs" / "tiny-t000-s0" / "journal.jsonl"

    def rounds() -> int:
        return sum(record["kind"] == "round" for record in JournalReader(journal).new_records())

    def kill_a_worker() -> None:
        wait_for(lambda: rounds() > 3, watched=opened.folder.parents[1])
        (worker,) = [pid for pid in descendants(os.getpid()) if has_open(pid, journal)]
        os.kill(worker, signal.SIGKILL)

    killer = Thread(target=kill_a_worker)
    killer.start()
    _, finished = run_sweep(opened)
    killer.join()
    assert finished
    views = runs_of(opened)
    assert set(views) == {"tiny-t000-s0", "tiny-t000-s10"}
    assert "resume" in [event["name"] for event in views["tiny-t000-s0"].events]
    for view in views.values():
        assert view.status == "finished"
        assert_same_rounds(undisturbed(view, tmp_path), view)


def test_pruned_and_diverged_trials(ray_cluster: None, make_sweep: MakeSweep) -> None:
    """Stopped only once Ω has acted, told as pruned; NaN told as failed; neither confirmed; no baseline stopped."""
    opened = make_sweep(
        "algorithm.rounds=24",
        parameters={
            "algorithm.lr": {"choice": [1e-6, 1e-3, 1e30]},
            "reward.omega_min": {"uniform": [0.5, 0.6]},
        },
        enqueue=[
            {"algorithm.lr": lr, "reward.omega_min": omega}
            for lr, omega in ((1e30, 0.5), (1e-3, 0.5), (1e-6, 0.6), (1e-3, 0.55), (1e-6, 0.52), (1e-3, 0.57))
        ],
        early_stopping={"kind": "median", "startup_trials": 1},
        budget={"trials": 8, "evaluations": 12, "concurrent": 1},
        baselines={"R2M default": {"reward.omega_min": 0.5}},
        confirm=[10],
    )  # fmt: skip
    answer, finished = run_sweep(opened)
    assert finished
    trials = opened.study().get_trials()
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert {trial.params["algorithm.lr"] for trial in failed} == {1e30}
    assert "diverged" in failed[0].user_attrs["reason"]
    assert pruned
    assert trials[0].user_attrs["baseline"] == "R2M default"
    assert trials[0].state == TrialState.COMPLETE
    views = runs_of(opened)
    for trial in pruned:
        view = views[trial.user_attrs["runs"][0]]
        assert view.status == "pruned"
        assert 12 <= max(view.rounds) < 24  # ω is at Ω >= 0.5 from the middle of the run on
        assert trial.intermediate_values == dict(enumerate(view.series("eval/gold")[1], 1))
    assert answer.winner in {f"t{t.number:03d}" for t in trials if t.state == TrialState.COMPLETE}


@pytest.mark.timeout(0)  # what it waits for has limits of its own
def test_a_sweep_is_killed_all_over_stopped_and_finished(sweep_file: SweepFile, tmp_path: Path) -> None:
    """A trial's process, the driver and the head of Ray are killed in turn; Ctrl-C stops the sweep; and at the end
    it has the runs of one that nothing happened to, each once, with the same metrics."""
    storage = str(tmp_path / "storage")
    file = sweep_file(
        "algorithm.rounds=80", "run.checkpoint_every=5",
        budget={"trials": 4, "evaluations": 4, "concurrent": 2},
        confirm=[10],
    )  # fmt: skip
    runs, ours, whole = Path(storage) / "runs", set[int](), dict[Path, bytes]()

    def begun() -> list[Path]:
        return [path for path in runs.glob("mine-*/journal.jsonl") if done(path) > 0]

    def done(path: Path) -> int:
        return max((r["step"] for r in JournalReader(path).new_records() if r["kind"] == "round"), default=0)

    def holders(process: subprocess.Popen) -> dict[int, Path]:
        """Processes of trials, and the journals that they write."""
        ours.update(descendants(process.pid))
        return {pid: path for pid in descendants(process.pid) for path in begun() if has_open(pid, path)}

    def at_work(process: subprocess.Popen, new_runs: int) -> dict[int, Path]:
        """Wait until so many more runs have ended, and others are under way and have a checkpoint."""
        ended = len(finished()) + new_runs
        wait_for(lambda: len(finished()) >= ended, process)
        wait_for(lambda: any(10 < done(path) < 60 for path in holders(process).values()), process)
        return {pid: path for pid, path in holders(process).items() if done(path) > 10}

    def finished() -> dict[Path, bytes]:
        journals = {path: path.read_bytes() for path in runs.glob("mine-*/journal.jsonl")}
        return {path: text for path, text in journals.items() if b'"name": "finished"' in text}

    def killed(process: subprocess.Popen) -> None:
        whole.update(finished())
        process.kill()
        process.communicate()
        wait_for(lambda: not holders(process) and not any(alive(pid) for pid in workers))

    process = r2m("sweep", file, "--name", "mine", "--storage", storage, cwd=tmp_path)
    try:
        worker, path = at_work(process, 0).popitem()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: '"resume"' in path.read_text(), process)
        workers = at_work(process, 1)
        killed(process)

        process = r2m("sweep", "--resume", "mine", "--storage", storage, cwd=tmp_path)
        at_work(process, 1)
        second = r2m("sweep", "--resume", "mine", "--storage", storage, cwd=tmp_path)
        refused = end_of(second)
        assert second.returncode == 2, refused
        assert "another process" in refused
        assert refused.count("\n") == 1
        (head,) = [pid for pid in descendants(process.pid) if "gcs_server" in command_of(pid)]
        workers = at_work(process, 0)
        whole.update(finished())
        os.kill(head, signal.SIGKILL)
        end_of(process)
        assert process.returncode != 0
        wait_for(lambda: not any(alive(pid) for pid in workers))

        process = r2m("sweep", "--resume", "mine", "--storage", storage, cwd=tmp_path)
        at_work(process, 1)
        process.send_signal(signal.SIGINT)
        said = end_of(process)
        assert process.returncode == 130, said
        assert "Traceback" not in said
        assert f"sweep --resume mine --storage {storage}\n" in said
        whole.update(finished())
        assert len(whole) < 7

        process = r2m("sweep", "--resume", "mine", "--storage", storage, cwd=tmp_path)
        said = end_of(process)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        kill_all(ours)
    for path, text in whole.items():
        assert path.read_bytes() == text  # what was finished was not run again
    opened = open_sweep(storage, "mine")
    views = runs_of(opened)
    assert {view.status for view in views.values()} == {"finished"}
    assert states(opened) == {"COMPLETE": 4}
    names = {f"mine-t{n:03d}-s0" for n in range(4)} | {f"mine-{arm}-s0" for arm in ("rloo", "r2m-default")}
    names |= {f"mine-{arm}-s10" for arm in ("rloo", "r2m-default")}
    assert len(set(views) - names) == 1  # the winner's
    for view in views.values():
        assert steady(view) == steady(undisturbed(view, tmp_path))
    _, children = shipped(opened)
    assert set(children) == set(views)
    client = MlflowClient(opened.tracking_uri)
    for name, run in children.items():
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "kl/sequence")
        assert sorted(p.step for p in history) == list(views[name].rounds)
