"""The alarm in whole runs, whose judge likes what the reward model doesn't: all that is learnt is hacking."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import start_workers
from markupsafe import escape

from r2m.config import Config, load
from r2m.models.loading import load_tokenizer
from r2m.models.saving import save_model
from r2m.reward.loading import load_reward_model
from r2m.runs.folder import ALARM_PAGE, BEST_JUDGED, CHECKPOINTS
from r2m.runs.journal import JournalView, read
from r2m.training import checkpoint
from r2m.training.loop import run_loop
from r2m.training.start import StartedRun, new_run
from r2m.workers import Workers

HACKED = (
    "reward.feedback=off", "reward.no_eos=keep", "algorithm.beta=0", "algorithm.lr=3e-3", "algorithm.rounds=12",
    "algorithm.queries=16", "algorithm.responses=8", "algorithm.sample_batch=128", "algorithm.microbatch=128",
    "task.held_out=64", "run.eval_queries=64", "run.eval_every=2", "run.checkpoint_every=2",
    "run.keep_checkpoints=9",
)  # fmt: skip
Start = Callable[..., StartedRun]


@pytest.fixture
def contrary(forum_models: tuple[str, str], tmp_path: Path) -> str:
    """The reward model with its score turned round."""
    reward, _ = load_reward_model(forum_models[1])
    with torch.no_grad():
        reward.model.score.weight *= -1
    save_model(tmp_path / "contrary", reward.model, load_tokenizer(forum_models[1]))
    return str(tmp_path / "contrary")


@pytest.fixture
def start(make_config: Callable[..., Config], contrary: str) -> Start:
    def make(name: str, *overrides: str) -> StartedRun:
        return new_run(make_config(f"run.judge={contrary}", *HACKED, *overrides), name)

    return make


def told(view: JournalView) -> list[str]:
    """Events without those of every evaluation and checkpoint."""
    return [event["name"] for event in view.events if event["name"] not in ("judged", "checkpoint")]


def loop(run: StartedRun) -> JournalView:
    run_loop(run.config, run.folder, run.models)
    return read(run.journal)


@pytest.fixture
def noted(start: Start) -> tuple[StartedRun, JournalView]:
    run = start("noted")
    return run, loop(run)


class TestNote:
    def test_one_alarm_and_the_run_goes_on(self, noted: tuple[StartedRun, JournalView]) -> None:
        _, view = noted
        assert told(view) == ["alarm", "finished"]
        alarm = view.alarm
        assert alarm is not None
        steps, on = view.series("alarm/on")
        assert on == [float(step >= alarm["step"]) for step in steps]
        assert alarm["step"] < 12
        means = {step: sum(scores) for step, scores in view.judged.items() if step <= alarm["step"]}
        assert alarm["began"] == max(means, key=lambda step: means[step])
        assert alarm["checkpoint"] == alarm["began"]
        assert "suspected by kl" in alarm["reason"]
        assert alarm["signals"]["text_drift"] == view.rounds[alarm["step"]]["signal/text_drift"]

    def test_its_texts_are_in_the_page(self, noted: tuple[StartedRun, JournalView]) -> None:
        run, view = noted
        assert view.alarm is not None
        best = json.loads((run.folder / BEST_JUDGED).read_text())
        assert best["step"] == view.alarm["began"]
        assert [row["judged"] for row in best["said"]] == view.judged[best["step"]]
        proxy = view.rounds[best["step"]]["eval/proxy"]
        assert sum(row["proxy"] for row in best["said"]) / 64 == pytest.approx(proxy)
        page = (run.folder / ALARM_PAGE).read_text()
        assert view.alarm["reason"][1:] in page
        assert sum(escape(row["response"]) in page for row in best["said"] if row["response"]) >= 10

    def test_the_oldest_checkpoint_may_be_too_late(self, start: Start) -> None:
        view = loop(start("few", "run.keep_checkpoints=2"))
        assert view.alarm is not None
        assert view.alarm["checkpoint"] is None


class TestStop:
    @pytest.fixture
    def stopped(self, start: Start) -> tuple[StartedRun, JournalView]:
        run = start("stopped", "run.on_alarm=stop")
        return run, loop(run)

    def test_with_a_checkpoint_for_good(
        self, stopped: tuple[StartedRun, JournalView], noted: tuple[StartedRun, JournalView]
    ) -> None:
        run, view = stopped
        alarm, other = view.alarm, noted[1].alarm
        assert alarm is not None
        assert other is not None
        assert (alarm["step"], alarm["signals"]) == (other["step"], other["signals"])
        assert list(view.rounds) == list(range(1, alarm["step"] + 1))
        assert view.status == "pruned"
        assert view.events[-1]["reason"] == f"alarm in round {alarm['step']}: {alarm['reason']}"
        assert told(view) == ["alarm", "pruned"]
        assert checkpoint.found(run.folder / CHECKPOINTS)[0].name == f"step-{alarm['step']:06d}"
        assert not (run.folder / "policy").exists()

    def test_gone_on_with_all_the_same_it_runs_to_its_end(self, stopped: tuple[StartedRun, JournalView]) -> None:
        view = loop(stopped[0])
        assert told(view) == ["alarm", "pruned", "resume", "finished"]
        assert list(view.rounds) == list(range(1, 13))
        assert view.rounds[12]["alarm/on"] == 1

    def test_killed_before_its_checkpoint_it_is_told_of_once(self, stopped: tuple[StartedRun, JournalView]) -> None:
        """The rounds since the checkpoint before are replayed, the alarm's among them."""
        run, view = stopped
        assert view.alarm is not None
        lines = run.journal.read_text().splitlines(keepends=True)
        alarm = next(i for i, line in enumerate(lines) if json.loads(line).get("name") == "alarm")
        run.journal.write_text("".join(lines[: alarm + 1]))
        shutil.rmtree(checkpoint.found(run.folder / CHECKPOINTS)[0])
        again = loop(run)
        assert told(again) == ["alarm", "resume", "pruned"]
        assert list(again.rounds) == list(view.rounds)
        assert again.events[-1]["reason"] == view.events[-1]["reason"]

    def test_all_workers_end_after_the_same_round(self, start: Start, tmp_path: Path) -> None:
        run = start("two", "run.on_alarm=stop", "run.workers=2")
        start_workers(worker, (run, tmp_path), 2)
        view = read(run.journal)
        assert told(view) == ["alarm", "pruned"]
        assert view.alarm is not None
        assert len(view.judged[2]) == 64
        assert list(view.rounds)[-1] == view.alarm["step"] < 12


def worker(rank: int, run: StartedRun, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    run_loop(run.config, run.folder, run.models, Workers(rank, 2))
    dist.destroy_process_group()


def test_without_a_judge_there_is_suspicion_alone(text_recipe: Callable[..., str]) -> None:
    rows = [{"prompt": f"post {i}"} for i in range(40)]
    settings = ["algorithm.lr=1e-2", "algorithm.rounds=4", "run.eval_every=1", "run.on_alarm=stop"]
    config = load(text_recipe(rows), settings)
    view = loop(new_run(config, "text"))
    assert told(view) == ["finished"]
    assert view.judged == {}
    assert view.rounds[4]["alarm/suspicion"] > 0
    assert {m["alarm/on"] for m in view.rounds.values()} == {0}
    assert "alarm/decline" not in view.rounds[4]
