"""`r2m evaluate RUN --checkpoints` on runs of tiny models: against their own metrics, and what is exported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chat_server import ChatJudge, serving

from r2m.config import load
from r2m.errors import UserError
from r2m.evaluation.bench import open_policy
from r2m.evaluation.checkpoints import score_checkpoints
from r2m.results.checkpoints import TABLE
from r2m.runs.journal import Journal, read
from r2m.training.checkpoint import load_checkpoint
from r2m.training.loop import run_loop
from r2m.training.start import new_run

Command = Callable[..., tuple[int, str, str]]


def run_of(storage: str, name: str) -> Path:
    return Path(storage) / "runs" / name


@pytest.mark.parametrize("name", ["r2m", "rloo"])
def test_each_checkpoint_is_what_the_run_measured_at_its_round(storage: str, name: str) -> None:
    """Of the same prompts, with the head and the weight of feedback of that round."""
    table = score_checkpoints(storage, name, prompts=6)
    journal = read(run_of(storage, name) / "journal.jsonl")
    assert [row.step for row in table.rows] == [2, 4]
    for row in table.rows:
        metrics = journal.rounds[row.step]
        assert row.score == pytest.approx(metrics["eval/gold"], rel=1e-5, abs=1e-5)
        assert row.proxy == pytest.approx(metrics["eval/proxy"], rel=1e-5, abs=1e-5)
        assert row.vanilla == pytest.approx(metrics["eval/vanilla"], rel=1e-5, abs=1e-5)
        assert row.kl == pytest.approx(metrics["eval/kl_sequence"], rel=1e-4, abs=1e-5)
    assert table.best.score == max(row.score for row in table.rows)


def test_the_table_is_kept_and_read_until_something_else_is_asked(storage: str) -> None:
    first = score_checkpoints(storage, "rloo", prompts=4)
    path = run_of(storage, "rloo") / TABLE
    tree = json.loads(path.read_text())
    assert (tree["judge"], tree["prompts"], tree["best"]) == ("gold", 4, first.best.step)
    path.write_text(path.read_text().replace('"proxy"', '"proxy": 77.0, "was"'))
    assert [row.proxy for row in score_checkpoints(storage, "rloo", prompts=4).rows] == [77.0, 77.0]
    assert score_checkpoints(storage, "rloo", prompts=4, refresh=True) == first
    assert score_checkpoints(storage, "rloo", prompts=5).prompts == 5


def test_the_best_is_written_as_a_folder_with_its_weights(r2m: Command, storage: str, tmp_path: Path) -> None:
    to = tmp_path / "best"
    code, out, err = r2m("evaluate", "rloo", "--checkpoints", "--storage", storage, "--export", str(to))
    assert code == 0, err
    best = json.loads((run_of(storage, "rloo") / TABLE).read_text())["best"]
    assert f"{to}, the policy of round {best}" in out
    tensors, _, _ = load_checkpoint(run_of(storage, "rloo") / "checkpoints" / f"step-{best:06d}")
    written = dict(open_policy(load("forum", []), to).model.named_parameters())
    assert written
    assert all(torch.equal(p, tensors[f"policy/{name}"]) for name, p in written.items())
    code, _, err = r2m("evaluate", "rloo", "--checkpoints", "--storage", storage, "--export", str(to))
    assert (code, "it exists; name a new or an empty folder" in err) == (2, True)


def test_the_command_prints_the_table_and_what_it_says(r2m: Command, storage: str) -> None:
    code, out, err = r2m("evaluate", "rloo", "--checkpoints", "--storage", storage)
    assert code == 0, err
    tree = json.loads((run_of(storage, "rloo") / TABLE).read_text())
    flat = " ".join(out.split())
    assert "rloo: checkpoints by gold, 12 held-out prompts" in flat
    for sentence in tree["verdict"]:
        assert sentence in flat
    assert f"{tree['best']} *" in out
    assert "--export FOLDER" in out


def test_a_run_that_was_stopped_is_scored_and_a_spoilt_checkpoint_is_left_out(r2m: Command, storage: str) -> None:
    folder = run_of(storage, "rloo")
    with Journal(folder / "journal.jsonl") as journal:
        journal.event("pruned", step=4, reason="the alarm")
    shutil.rmtree(folder / "policy")
    with (folder / "checkpoints" / "step-000002" / "state.safetensors").open("ab") as file:
        file.write(b"x")
    code, out, err = r2m("evaluate", "rloo", "--checkpoints", "--storage", storage, "--prompts", "2")
    assert code == 0, err
    assert "left out: step-000002: state.safetensors is not the file that was written" in " ".join(err.split())
    assert "One checkpoint was kept, of round 4" in " ".join(out.split())
    shutil.rmtree(folder / "checkpoints" / "step-000004")
    with pytest.raises(UserError, match="none of its checkpoints is whole"):
        score_checkpoints(storage, "rloo")


def test_a_language_model_s_win_rate_is_a_score_too(r2m: Command, storage: str, tmp_path: Path) -> None:
    """One that prefers what comes first contradicts itself: 1/2 everywhere, and the earliest of equals is best."""

    class AlwaysA(ChatJudge):
        @staticmethod
        def verdict(text: str) -> str:
            return "Preferred: A"

    command = ("evaluate", "rloo", "--checkpoints", "--storage", storage, "--prompts", "3", "--verdicts",
               str(tmp_path / "v.jsonl"), "--against", "reference")  # fmt: skip
    with serving(AlwaysA) as url:
        code, out, err = r2m(*command, "--judge-url", url, "--judge-model", "m")
    assert code == 0, err
    tree = json.loads((run_of(storage, "rloo") / TABLE).read_text())
    assert tree["judge"].startswith("the win rate against reference by m at ")
    assert [row["scores"] for row in tree["rows"]] == [[0.5] * 3] * 2
    assert tree["best"] == 2
    assert "not told apart" in " ".join(out.split())


def test_adapters_are_scored_and_written_as_adapters(
    forum_models: tuple[str, str], storage: str, tmp_path: Path
) -> None:
    policy, reward = forum_models
    like = read(run_of(storage, "rloo") / "journal.jsonl").start["config"]
    run = new_run(load("forum", [
        f"policy.model={policy}", f"reward.model={reward}", f"run.storage={storage}", "reward.feedback=off",
        "task.posts=40", "task.held_out=12", "algorithm.queries=4", "algorithm.rounds=2", "algorithm.microbatch=8",
        f"algorithm.max_response_tokens={like['algorithm']['max_response_tokens']}", "algorithm.lr=1e-2",
        "run.device=cpu", "run.eval_every=1", "run.eval_queries=6", "run.checkpoint_every=1", "policy.lora.rank=4",
    ]), "lora")  # fmt: skip
    run_loop(run.config, run.folder, run.models)
    table = score_checkpoints(storage, "lora", prompts=6, export=tmp_path / "best")
    metrics = read(run.journal).rounds
    for row in table.rows:
        assert row.score == pytest.approx(metrics[row.step]["eval/gold"], rel=1e-5, abs=1e-5)
        assert row.kl == pytest.approx(metrics[row.step]["eval/kl_sequence"], rel=1e-4, abs=1e-5)
    assert table.rows[1].kl > 0  # its adapters do something
    assert (tmp_path / "best" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "RUN = 'nowhere': not in "),
        (("rloo", "--judge", "vanilla"), "--judge 'vanilla': it trained the policy"),
        (("rloo", "--against", "sft"), "--against 'sft': with --checkpoints it is sft or reference, of --judge-url"),
        (("rloo", "--recipe", "forum"), "--recipe: it does not go with --checkpoints"),
        (("rloo", "--pairs", "x.jsonl"), "--pairs: it does not go with --checkpoints"),
        (("rloo", "--prompts", "99"), "--prompts 99: 1 to 12, "),
        (("rloo", "--judge", "nobody"), "--judge = 'nobody': a Hugging Face folder or hub id is needed"),
    ],
)
def test_a_mistake_is_one_line(r2m: Command, storage: str, words: tuple[str, ...], said: str) -> None:
    code, _, err = r2m("evaluate", *words, "--checkpoints", "--storage", storage)
    assert code == 2
    assert said in " ".join(err.split())


def test_what_cannot_be_scored_is_said(r2m: Command, storage: str) -> None:
    code, _, err = r2m("evaluate", "rloo", "--export", "x", "--storage", storage)
    assert (code, "--export: --checkpoints is needed with it" in err) == (2, True)
    shutil.rmtree(run_of(storage, "sft") / "checkpoints")
    code, _, err = r2m("evaluate", "sft", "--checkpoints", "--storage", storage)
    assert (code, "RUN = 'sft': it has no checkpoint" in err) == (2, True)
    path = run_of(storage, "rloo") / "journal.jsonl"
    path.write_text(path.read_text().replace('"sharding": "none"', '"sharding": "zero2"'))
    code, _, err = r2m("evaluate", "rloo", "--checkpoints", "--storage", storage)
    assert (code, "its checkpoints have the policy in a part for each worker" in " ".join(err.split())) == (2, True)
