"""The worker loop: journal, checkpoints, stopping and going on."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from r2m.config import Config
from r2m.metrics import METRICS
from r2m.runs.folder import CHECKPOINTS, PRUNED, STOP_FILE
from r2m.runs.journal import JournalReader, JournalView, read
from r2m.training import checkpoint
from r2m.training.loop import run_loop
from r2m.training.start import StartedRun, new_run

MakeConfig = Callable[..., Config]

SIX = ("algorithm.rounds=6",)


def steady(view: JournalView) -> dict[int, dict[str, float]]:
    """What a run's rounds say but for what the machine's speed decides."""
    return {
        step: {k: v for k, v in metrics.items() if k.split("/")[0] not in ("time", "speed", "memory")}
        for step, metrics in view.rounds.items()
    }


def loop(run: StartedRun) -> JournalView:
    run_loop(run.config, run.folder, run.models)
    return read(run.journal)


def events(view: JournalView) -> list[str]:
    return [event["name"] for event in view.events if event["name"] != "judged"]


@pytest.fixture
def start(make_config: MakeConfig) -> Callable[..., StartedRun]:
    def make(name: str, *overrides: str) -> StartedRun:
        return new_run(make_config(*SIX, *overrides), name)

    return make


Start = Callable[..., StartedRun]


@pytest.fixture
def undisturbed(start: Start) -> JournalView:
    return loop(start("undisturbed"))


class TestWhole:
    def test_every_round_is_there(self, undisturbed: JournalView) -> None:
        assert list(undisturbed.rounds) == [1, 2, 3, 4, 5, 6]
        assert undisturbed.status == "finished"
        assert events(undisturbed) == ["checkpoint"] * 3 + ["finished"]
        assert list(undisturbed.samples) == [1, 2, 4, 6]

    def test_all_metrics_are_defined_and_all_defined_ones_reported(self, undisturbed: JournalView) -> None:
        reported = {key for metrics in undisturbed.rounds.values() for key in metrics}
        assert {key for key in reported if not key.startswith("task/")} <= METRICS.keys()
        of_others = {"reward/greedy", "rollout/greedy_tokens", "head/anchor", "label/judgements"}  # settings
        assert {key for key in METRICS if not key.startswith(("sweep/", "pipeline/"))} - of_others <= reported

    def test_each_evaluation_tells_what_was_judged(self, undisturbed: JournalView) -> None:
        judged = [event for event in undisturbed.events if event["name"] == "judged"]
        gold = dict(zip(*undisturbed.series("eval/gold"), strict=True))
        assert [event["step"] for event in judged] == list(gold)
        for event in judged:
            assert len(event["scores"]) == 8
            assert sum(event["scores"]) / 8 == pytest.approx(gold[event["step"]])

    def test_evaluation_at_its_rounds_and_the_last(self, start: Start) -> None:
        view = loop(start("evaluated", "run.eval_every=4"))
        assert view.series("eval/gold")[0] == [4, 6]
        assert view.series("time/eval_s")[0] == [4, 6]
        never = loop(start("never", "run.eval_every=0"))
        assert never.series("eval/gold")[0] == []

    def test_evaluating_does_not_change_the_run(self, start: Start, undisturbed: JournalView) -> None:
        never = steady(loop(start("never", "run.eval_every=0")))
        for step, metrics in steady(undisturbed).items():
            assert {
                k: v for k, v in metrics.items() if not k.startswith(("eval/", "signal/", "alarm/"))
            } == pytest.approx(never[step], abs=0, rel=0, nan_ok=True)

    def test_its_folder(self, start: Start) -> None:
        run = start("folder")
        loop(run)
        assert {"policy", "reward", "checkpoints", "journal.jsonl", "config.yaml"} <= {
            path.name for path in run.folder.iterdir()
        }
        assert [p.name for p in checkpoint.found(run.folder / CHECKPOINTS)] == ["step-000006", "step-000004"]


def assert_same_rounds(a: JournalView, b: JournalView) -> None:
    """Bit for bit."""
    assert list(a.rounds) == list(b.rounds)
    for one, two in zip(steady(a).values(), steady(b).values(), strict=True):
        assert one.keys() == two.keys()
        assert [k for k in one if one[k] != two[k] and not (math.isnan(one[k]) and math.isnan(two[k]))] == []


class TestResumed:
    def test_stopped_after_every_round(self, start: Start, undisturbed: JournalView) -> None:
        run = start("stopped")
        (run.folder / STOP_FILE).touch()
        for step in (1, 2, 3):
            view = loop(run)
            assert list(view.rounds)[-1] == step
            assert view.status == "stopped"
        (run.folder / STOP_FILE).unlink()
        view = loop(run)
        assert view.status == "finished"
        assert events(view)[:6] == ["checkpoint", "stopped", "resume", "checkpoint", "stopped", "resume"]
        assert_same_rounds(view, undisturbed)
        assert view.samples == undisturbed.samples
        final = [Path(view_folder) for view_folder in (run.folder, run.folder.with_name("undisturbed"))]
        a, b = (checkpoint.newest_whole(folder / CHECKPOINTS, pytest.fail) for folder in final)
        assert a is not None
        assert b is not None
        assert [name for name in b[0] if not torch.equal(a[0][name], b[0][name])] == []

    @pytest.mark.parametrize("overrides", [("reward.feedback=off",), ("algorithm.lr_decay=linear",)])
    def test_another_arm(self, start: Start, overrides: tuple[str, ...]) -> None:
        run = start("stopped", *overrides)
        (run.folder / STOP_FILE).touch()
        loop(run)
        (run.folder / STOP_FILE).unlink()
        assert_same_rounds(loop(run), loop(start("whole", *overrides)))

    def test_killed_between_journal_and_checkpoint(self, start: Start, undisturbed: JournalView) -> None:
        """Rounds since the last checkpoint are replayed, to the bit, and counted once."""
        run = start("killed")
        (run.folder / STOP_FILE).touch()
        loop(run)
        loop(run)
        loop(run)
        shutil.rmtree(run.folder / CHECKPOINTS / "step-000003")  # as if killed after round 3
        (run.folder / STOP_FILE).unlink()
        view = loop(run)
        assert [e["step"] for e in view.events if e["name"] == "resume"] == [1, 2, 2]
        steps = [r["step"] for r in JournalReader(run.journal).new_records() if r["kind"] == "round"]
        assert steps == [1, 2, 3, 3, 4, 5, 6]
        assert_same_rounds(view, undisturbed)

    def test_a_spoilt_checkpoint_is_reported_and_the_one_before_it_taken(
        self, start: Start, undisturbed: JournalView
    ) -> None:
        run = start("spoilt")
        (run.folder / STOP_FILE).touch()
        loop(run)
        loop(run)
        with open(run.folder / CHECKPOINTS / "step-000002" / checkpoint.STATE, "r+b") as file:
            file.truncate(100)
        (run.folder / STOP_FILE).unlink()
        view = loop(run)
        (refused,) = [e for e in view.events if e["name"] == "checkpoint-refused"]
        assert refused["reason"].startswith("step-000002: state.safetensors is not the file that was written")
        assert [e["step"] for e in view.events if e["name"] == "resume"] == [1, 1]
        assert_same_rounds(view, undisturbed)

    def test_after_its_last_round(self, start: Start, undisturbed: JournalView) -> None:
        """Killed between the last checkpoint and the exported models."""
        run = start("late")
        loop(run)
        shutil.rmtree(run.folder / "policy")
        view = loop(run)
        assert view.status == "finished"
        assert (run.folder / "policy" / "config.json").is_file()
        assert_same_rounds(view, undisturbed)


class TestPruned:
    def test_a_run_that_is_asked_to_end_for_good(self, start: Start) -> None:
        """After the round in hand, with a checkpoint; it exports no models."""
        run = start("pruned")
        (run.folder / STOP_FILE).write_text(PRUNED)
        view = loop(run)
        assert list(view.rounds) == [1]
        assert view.status == "pruned"
        assert events(view) == ["checkpoint", "pruned"]
        assert view.events[-1]["step"] == 1
        assert not (run.folder / "policy").exists()

    def test_after_the_last_round_it_has_finished(self, start: Start) -> None:
        run = start("late", "algorithm.rounds=1")
        (run.folder / STOP_FILE).write_text(PRUNED)
        assert loop(run).status == "finished"


def test_a_diverged_run_is_journalled_as_failed(start: Start) -> None:
    """With weights that overflow: the reason is in the journal, and no exception reaches Ray to try it again."""
    run = start("diverged", "algorithm.lr=1e30", "algorithm.max_grad_norm=1e30", "reward.feedback=off")
    view = loop(run)
    assert view.status == "failed"
    assert view.events[-1]["reason"].startswith("round ")
    assert "nan" in view.events[-1]["reason"] or "inf" in view.events[-1]["reason"]


class TestSaving:
    """Nothing that was paid for is lost to what a model's own code does when it is saved."""

    @pytest.fixture
    def published(self, forum_models: tuple[str, str], tmp_path: Path) -> str:
        """The policy, with a temperature and no do_sample, which transformers loads and does not save."""
        folder = tmp_path / "published"
        shutil.copytree(forum_models[0], folder)
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.6}))
        return str(folder)

    def test_a_policy_as_published(self, make_config: MakeConfig, published: str) -> None:
        run = new_run(make_config("algorithm.rounds=1", f"policy.model={published}"), "published")
        assert loop(run).status == "finished"
        settings = json.loads((run.folder / "policy" / "generation_config.json").read_text())
        assert (settings["temperature"], settings["do_sample"]) == (0.6, True)
        assert [path.name for path in run.folder.iterdir() if path.name.startswith(".")] == []

    def test_one_that_cannot_be_saved_fails_before_its_first_round(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise ValueError("no such thing")

        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", refuse)
        run = start("unsavable")
        view = loop(run)
        assert (view.status, view.rounds) == ("failed", {})
        reason = view.events[-1]["reason"]
        assert reason.startswith("policy.model = ")
        assert reason.endswith(": it could not be saved after the training (no such thing)")
        monkeypatch.undo()
        assert loop(run).status == "finished"  # what was wrong is put right

    def test_where_saving_fails_after_all_the_last_checkpoint_is_kept(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start("late", "algorithm.rounds=2")
        whole = LlamaForCausalLM.save_pretrained

        def fail_at_the_end(self: LlamaForCausalLM, folder: Path, **options: Any) -> None:
            if "state_dict" not in options:
                raise ValueError("no such thing")
            whole(self, folder, **options)

        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fail_at_the_end)
        view = loop(run)
        assert (view.status, list(view.rounds)) == ("failed", [1, 2])
        assert view.events[-1]["reason"] == (
            "the last checkpoint has the trained weights: the models could not be saved (no such thing)"
        )
        monkeypatch.undo()
        view = loop(run)
        assert (view.status, list(view.rounds)) == ("finished", [1, 2])
        assert (run.folder / "policy" / "model.safetensors").is_file()


def test_where_no_checkpoint_is_whole_it_starts_over_and_says_so(start: Start, undisturbed: JournalView) -> None:
    run = start("over")
    (run.folder / STOP_FILE).touch()
    loop(run)
    loop(run)
    for path in checkpoint.found(run.folder / CHECKPOINTS):
        (path / checkpoint.MANIFEST).write_text("{}")
    (run.folder / STOP_FILE).unlink()
    view = loop(run)
    refused = [e["reason"] for e in view.events if e["name"] == "checkpoint-refused"]
    assert refused == [f"step-00000{n}: its manifest is not what was written" for n in (2, 1)]
    assert [e["step"] for e in view.events if e["name"] == "resume"] == [1, 0]
    assert_same_rounds(view, undisturbed)


def test_a_checkpoint_with_another_step_is_not_believed(start: Start, undisturbed: JournalView) -> None:
    """The rounds after it would differ from the undisturbed run's, in silence."""
    run = start("edited")
    (run.folder / STOP_FILE).touch()
    for _ in range(3):
        loop(run)
    manifest = run.folder / CHECKPOINTS / "step-000003" / checkpoint.MANIFEST
    manifest.write_text(manifest.read_text().replace('"step": 3', '"step": 4'))
    (run.folder / STOP_FILE).unlink()
    view = loop(run)
    assert [e["step"] for e in view.events if e["name"] == "resume"][-1] == 2
    assert_same_rounds(view, undisturbed)
