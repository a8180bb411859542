"""A sweep's folder: what begins, what is refused with nothing left behind, what is found again, and its answer."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from r2m.cli.common import say_left_out
from r2m.config import load
from r2m.errors import UserError
from r2m.runs.journal import Journal, read
from r2m.sweeps.ranking import command
from r2m.sweeps.spec import config_of
from r2m.sweeps.sweep import (
    ANSWER_FILES,
    Opened,
    elapsed_s,
    new_sweep,
    open_sweep,
    runs_of,
    status_of,
    sweep_folder,
    write_answer,
)
from r2m.training.start import new_run

MakeSweep = Callable[..., Opened]
SweepFile = Callable[..., str]
Command = Callable[..., tuple[int, str, str]]

POINTS = {"parameters": {"reward.alpha": {"uniform": [0, 1]}}, "baselines": {}, "confirm": [10]}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def run_of(opened: Opened, name: str, *golds: float, parent: str | None = None, trial: str = "RLOO") -> None:
    """A finished run in the sweep's storage, with an evaluation a round."""
    run = new_run(opened.base, name, parent=parent, tags={"r2m.trial": trial})
    with Journal(run.journal) as journal:
        for step, gold in enumerate(golds, 1):
            journal.round(step, {"reward/proxy": 0.0, "eval/gold": gold, "eval/kl_sequence": 3.0})
        journal.event("finished")


class TestAnyFolder:
    """A sweep typed with relative paths, gone on with and repeated in other folders."""

    @pytest.fixture
    def opened(
        self, make_config: Callable[..., Any], forum_models: tuple[str, str], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Opened:  # fmt: skip
        here = tmp_path / "a%20b #?~"
        for name, model in zip(("policy", "reward"), forum_models, strict=True):
            shutil.copytree(model, here / "models" / name)
        recipe = make_config().model_dump(mode="json")
        recipe["policy"]["model"], recipe["reward"]["model"] = "models/policy", "models/other"
        (here / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        file = {
            "recipe": "recipe.yaml",
            "set": {"reward.model": "./models/reward"},
            "objectives": [{"metric": "eval/gold"}],
        }
        (here / "sweep.yaml").write_text(yaml.safe_dump(file | POINTS))
        monkeypatch.chdir(here)
        opened = new_sweep("sweep.yaml", "mine", str(here / "runs"))
        monkeypatch.chdir(tmp_path)
        return opened

    def test_it_is_found_again_as_it_was(self, opened: Opened) -> None:
        again = open_sweep(opened.storage, "mine")
        assert again.base == opened.base
        here = opened.folder.parents[2]
        assert (again.base.policy.model, again.base.reward.model) == (
            f"{here}/models/policy",
            f"{here}/models/reward",
        )
        assert again.sweep.set == {"policy.model": f"{here}/models/policy", "reward.model": f"{here}/models/reward"}

    def test_its_commands_repeat_its_runs(self, opened: Opened) -> None:
        params = {"reward.alpha": 0.25}
        r2m, train, recipe, *sets = shlex.split(command(opened.sweep, params, 10))
        assert (r2m, train) == ("r2m", "train")
        config = load(recipe, [word for word in sets if word != "--set"])
        assert config.digest() == config_of(opened.sweep, params, 10).digest()
        assert Path(str(config.policy.model)).is_dir()

    def test_its_study_is_in_its_folder(self, opened: Opened) -> None:
        study = opened.study()
        study.optimize(lambda trial: trial.suggest_float("reward.alpha", 0, 1), n_trials=2)
        assert (opened.folder / "study.db").is_file()
        assert {path.name for path in opened.folder.parents[2].iterdir()} == {
            "models",
            "recipe.yaml",
            "sweep.yaml",
            "runs",
        }
        assert len(open_sweep(opened.storage, "mine").study().get_trials()) == 2


class TestNew:
    def test_its_folder_says_what_it_is(self, sweep_file: SweepFile, storage: Path) -> None:
        file = sweep_file()
        opened = new_sweep(file, "mine", str(storage), workers=2)
        assert opened.folder == sweep_folder(str(storage), "mine") == storage / "sweeps" / "mine"
        assert opened.text == Path(file).read_text()
        assert {path.name for path in opened.folder.iterdir()} == {
            "sweep.yaml", "recipe.yaml", "journal.jsonl",
        }  # fmt: skip
        view = read(opened.folder / "journal.jsonl")
        assert (view.run_id, view.arm, view.status) == ("mine", "sweep", "running")
        assert view.start["experiment"] == "r2m/sweeps/mine"
        assert view.start["tags"] == {"r2m.arm": "sweep", "r2m.sweep": "mine", "r2m.role": "sweep"}
        assert view.start["config"]["workers"] == 2
        assert view.start["config"]["sweep"]["parameters"].keys() == opened.sweep.parameters.keys()
        assert (opened.base.run.workers, opened.base.run.storage) == (2, str(storage))

    def test_a_python_file(self, sweep_file: SweepFile, tmp_path: Path, storage: Path) -> None:
        tree = yaml.safe_load(Path(sweep_file()).read_text())
        del tree["parameters"]
        file = tmp_path / "space.py"
        file.write_text(
            f"SWEEP = {tree!r}\n\n\ndef suggest(trial):\n"
            "    return {'reward.alpha': trial.suggest_float('alpha', 0, 1)}\n"
        )
        new_sweep(str(file), "mine", str(storage))
        opened = open_sweep(str(storage), "mine")
        assert (opened.folder / "sweep.py").read_text() == file.read_text() == opened.text
        assert 0 <= opened.sweep.suggest(opened.study().ask())["reward.alpha"] <= 1

    def test_a_name_of_its_own(self, sweep_file: SweepFile, storage: Path) -> None:
        a, b = (new_sweep(sweep_file(), None, str(storage)) for _ in range(2))
        assert a.name.startswith("tiny_sweep-")
        assert a.name != b.name

    @pytest.mark.parametrize("name", ["a b", "a/b", "../a", "ä", "a\n", "..", "-a", ".hidden"])
    def test_names_that_are_no_folders(self, sweep_file: SweepFile, storage: Path, name: str) -> None:
        with pytest.raises(UserError, match="letters, digits"):
            new_sweep(sweep_file(), name, str(storage))
        assert not storage.exists()

    def test_what_it_leaves_out_of_its_data_is_in_its_journal(
        self, make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]
    ) -> None:
        say_left_out(make_sweep().folder / "journal.jsonl")  # of the forum: nothing
        assert capsys.readouterr().err == ""

    def test_a_name_that_is_taken(self, make_sweep: MakeSweep) -> None:
        journal = make_sweep().folder / "journal.jsonl"
        before = journal.read_bytes()
        with pytest.raises(UserError, match=r"^--name 'tiny': there is such a sweep; go on with it by --resume"):
            make_sweep()
        assert journal.read_bytes() == before

    def test_runs_that_would_be_taken_for_its_own(self, make_sweep: MakeSweep, storage: Path) -> None:
        """Of a sweep of that name whose folder was removed, say; those of others are in nobody's way."""
        other = make_sweep(name="tiny-2")
        run_of(other, "tiny-2-t000-s0", 0.1, parent="tiny-2")
        run_of(other, "tiny-t000-s0-again", 0.1)
        run_of(other, "other-t000-s0", 0.1)
        make_sweep(name="tiny")
        for run in ("mine-t000-s0", "mine-rloo-s11"):
            run_of(other, run, 0.1)
            with pytest.raises(UserError, match=rf"^--name 'mine': .* has runs of that name \({run}\)"):
                make_sweep(name="mine")
            (storage / "runs" / run).rename(storage / run)
        assert not sweep_folder(str(storage), "mine").exists()

    @pytest.mark.parametrize(
        ("overrides", "sections", "said"),
        [
            ((), {"colour": 1}, "colour: unknown key"),
            (("algorithm.max_response_tokens=64",), {}, "policy.model = .*: its context is 64 tokens"),
            (
                (),
                {"constraints": [{"metric": "eval/gold", "min": 0}, {"metric": "eval/gold", "max": 1}]},
                "constraints.1: metric = 'eval/gold': given twice",
            ),
        ],
    )
    def test_nothing_is_left_of_a_mistake(
        self, make_sweep: MakeSweep, storage: Path, overrides: tuple[str, ...], sections: Any, said: str
    ) -> None:
        with pytest.raises(UserError, match=said):
            make_sweep(*overrides, **sections)
        assert not storage.exists()


class TestOpened:
    def test_as_it_was_begun(self, make_sweep: MakeSweep, storage: Path) -> None:
        begun = make_sweep(workers=2, tracking_uri="http://127.0.0.1:1")
        opened = open_sweep(str(storage), "tiny")
        assert (opened.name, opened.extra, opened.database) == (begun.name, begun.extra, begun.database)
        assert opened.sweep.model_dump() == begun.sweep.model_dump()
        assert opened.base == begun.base
        assert opened.tracking_uri == "http://127.0.0.1:1"

    def test_mlflow_is_in_the_storage_unless_said_otherwise(self, make_sweep: MakeSweep, storage: Path) -> None:
        assert make_sweep().tracking_uri == f"sqlite:///{storage}/mlflow.db"

    def test_a_storage_that_moved(self, make_sweep: MakeSweep, storage: Path, tmp_path: Path) -> None:
        make_sweep().study().enqueue_trial({"reward.alpha": 0.5})
        storage.rename(tmp_path / "elsewhere")
        opened = open_sweep(str(tmp_path / "elsewhere"), "tiny")
        assert opened.base.run.storage == str(tmp_path / "elsewhere")
        assert len(opened.study().get_trials()) == 1

    def test_one_that_is_not_there(self, make_sweep: MakeSweep, storage: Path) -> None:
        with pytest.raises(UserError, match=r"^SWEEP = 'b': not in .*; there are: none$"):
            open_sweep(str(storage), "b")
        make_sweep()
        with pytest.raises(UserError, match=r"^SWEEP = 'b': not in .*; there are: tiny$"):
            open_sweep(str(storage), "b")

    @pytest.mark.parametrize("left", [b"", b'{"kind": "sta', b"\0" * 9])
    def test_one_whose_journal_was_lost(self, make_sweep: MakeSweep, storage: Path, left: bytes) -> None:
        (make_sweep().folder / "journal.jsonl").write_bytes(left)
        with pytest.raises(UserError, match=r"^SWEEP = 'tiny': its journal has no whole line to go on from"):
            open_sweep(str(storage), "tiny")

    def test_one_whose_file_or_kept_recipe_has_changed(self, make_sweep: MakeSweep, storage: Path) -> None:
        folder = make_sweep().folder
        for path, change in ((folder / "sweep.yaml", {"seeds": [1]}), (folder / "recipe.yaml", {"recipe": "b"})):
            whole = path.read_text()
            path.write_text(yaml.safe_dump(yaml.safe_load(whole) | change))
            with pytest.raises(UserError, match=r"^SWEEP = 'tiny': its file or its recipe has changed"):
                open_sweep(str(storage), "tiny")
            path.write_text(whole)
        assert open_sweep(str(storage), "tiny").sweep.seeds == [0]

    @pytest.mark.parametrize("fate", ["changed", "moved", "removed", "broken"])
    def test_what_becomes_of_the_recipe_that_it_was_begun_with_is_nothing_to_it(
        self, make_sweep: MakeSweep, storage: Path, tmp_path: Path, fate: str
    ) -> None:
        begun = make_sweep()
        recipe = tmp_path / "tiny.yaml"
        before = [config_of(begun.sweep, {}, seed, *begun.extra) for seed in (0, 10)]
        if fate == "changed":
            recipe.write_text(recipe.read_text().replace("queries: 4", "queries: 8"))
        elif fate == "moved":
            recipe.rename(tmp_path / "elsewhere.yaml")
        elif fate == "removed":
            recipe.unlink()
        else:
            recipe.write_text("a: [")
        opened = open_sweep(str(storage), "tiny")
        assert [config_of(opened.sweep, {}, seed, *opened.extra) for seed in (0, 10)] == before
        assert opened.base == begun.base
        known, _ = write_answer(opened)
        assert known.verdict == ("No trial has started yet.",)
        again = command(opened.sweep, {"reward.alpha": 0.25}, 0)
        words = shlex.split(again)[2:]
        assert words[0] == str(opened.folder / "recipe.yaml")
        config = load(words[0], words[2::2])
        assert (config.reward.alpha, config.algorithm.queries, config.recipe) == (0.25, 4, begun.base.recipe)

    def test_one_begun_before_recipes_were_kept_goes_by_the_recipe_itself(
        self, make_sweep: MakeSweep, storage: Path, tmp_path: Path
    ) -> None:
        (make_sweep().folder / "recipe.yaml").unlink()
        recipe = tmp_path / "tiny.yaml"
        opened = open_sweep(str(storage), "tiny")
        assert opened.sweep.source == str(recipe)
        whole = recipe.read_text()
        recipe.write_text(whole.replace("queries: 4", "queries: 8"))
        with pytest.raises(UserError, match=r"^SWEEP = 'tiny': its file or its recipe has changed"):
            open_sweep(str(storage), "tiny")
        recipe.unlink()
        with pytest.raises(UserError, match=r"tiny\.yaml': no such file"):
            open_sweep(str(storage), "tiny")

    def test_one_of_a_recipe_of_the_package(self, make_sweep: MakeSweep, forum_models: tuple[str, str]) -> None:
        policy, reward = forum_models
        models = {"policy.model": policy, "reward.model": reward}
        opened = make_sweep(recipe="forum", name="own", set={"task.posts": 40, "task.held_out": 8} | models)
        assert opened.sweep.source == str(opened.folder / "recipe.yaml")
        assert command(opened.sweep, {}, 0).startswith("r2m train forum --set ")

    def test_one_that_has_lost_its_file(self, make_sweep: MakeSweep, storage: Path, r2m: Command) -> None:
        folder = make_sweep().folder
        (folder / "sweep.yaml").unlink()
        for words in (("status", "tiny"), ("--resume", "tiny")):
            code, _, err = r2m("sweep", *words, "--storage", str(storage))
            assert (code, err.splitlines()) == (
                2, [f"error: SWEEP = 'tiny': {folder} has lost its file, sweep.yaml or sweep.py; put it back"],
            )  # fmt: skip

    def test_its_study_is_kept_and_judged_as_the_file_says(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(
            objectives=[{"metric": "eval/gold"}, {"metric": "eval/kl_sequence", "direction": "minimize"}]
        )
        opened.study().ask()
        study = opened.study()
        assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert (study.study_name, len(study.get_trials())) == ("tiny", 1)
        assert (opened.folder / "study.db").is_file()


def test_its_runs_are_those_that_name_it(make_sweep: MakeSweep, storage: Path) -> None:
    opened = make_sweep()
    assert runs_of(opened) == {}
    run_of(opened, "tiny-t000-s0", 0.1, parent="tiny")
    run_of(opened, "tiny-2-t000-s0", 0.1, parent="tiny-2")
    run_of(opened, "tiny-by-hand", 0.1)
    partial = storage / "runs" / "tiny-t001-s0"
    partial.mkdir()
    (partial / "journal.jsonl").write_text('{"time":')
    views = runs_of(opened)
    assert list(views) == ["tiny-t000-s0"]
    assert views["tiny-t000-s0"].series("eval/gold") == ([1], [0.1])


def test_a_sweep_that_nobody_runs_is_not_running(make_sweep: MakeSweep) -> None:
    opened = make_sweep()
    assert status_of(opened) == "interrupted"
    with Journal(opened.folder / "journal.jsonl") as journal:
        assert status_of(opened) == "running"
        journal.event("finished")
        assert status_of(opened) == "finished"
    assert status_of(opened) == "finished"


def test_pauses_are_not_counted(tmp_path: Path) -> None:
    """Stopped at 130, resumed at 1000; killed after 1020, resumed at 2000: 30 + 20 + 5 seconds of work."""
    lines = [
        {"time": 100, "kind": "start", "run_id": "a", "config": {}},
        {"time": 110, "kind": "round", "step": 1, "metrics": {}},
        {"time": 130, "kind": "event", "name": "stopped"},
        {"time": 1000, "kind": "event", "name": "resume"},
        {"time": 1020, "kind": "round", "step": 2, "metrics": {}},
        {"time": 1999, "kind": "event", "name": "torn-end"},
        {"time": 2000, "kind": "event", "name": "resume"},
        {"time": 2005, "kind": "event", "name": "finished"},
    ]
    path = tmp_path / "journal.jsonl"
    assert elapsed_s(path) == 0
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert elapsed_s(path) == 55


class TestAnswer:
    def test_before_anything_has_run(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**POINTS)
        known, files = write_answer(opened)
        assert (known.winner, known.verdict) == (None, ("No trial has started yet.",))
        assert {file.name for file in files} <= set(ANSWER_FILES)
        assert json.loads((opened.folder / "answer.json").read_text())["ranking"] == []

    def test_what_is_known_is_written_whole_and_again(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep(**POINTS, budget={"trials": 2, "evaluations": 2})
        study = opened.study()
        for n, gold in enumerate((0.5, 0.75)):
            trial = study.ask()
            opened.sweep.suggest(trial)
            run_of(opened, f"tiny-t00{n}-s0", gold / 2, gold, parent="tiny", trial=f"trial {n}")
            study.tell(trial, gold)
            known, files = write_answer(opened)
            assert known.winner == f"t00{n}"
        assert [file.name for file in files] == [
            name for name in ANSWER_FILES if name != "importance.png"
        ]  # of 2 trials
        assert all(file.parent == opened.folder for file in files)
        assert not list(opened.folder.glob(".*"))
        tree = json.loads((opened.folder / "answer.json").read_text())
        assert tree["winner"] == "t001"
        assert [(arm["name"], arm["values"]) for arm in tree["ranking"]] == [("t001", [0.75]), ("t000", [0.5])]
        assert tree["spent"]["runs"] == {"finished": 2}
        assert "t001" in (opened.folder / "report.html").read_text()
        assert "0.75" in (opened.folder / "ranking.json").read_text()
        assert (opened.folder / "answer.png").read_bytes().startswith(b"\x89PNG")
