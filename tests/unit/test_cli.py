"""The command line: a user's mistake is one line, exit code 2, and leaves nothing behind."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig, LlamaForSequenceClassification

from r2m.cli import main
from r2m.config import Config, load
from r2m.models.saving import save_model
from r2m.runs.journal import Journal
from r2m.tasks.forum import forum_tokenizer
from r2m.training.start import new_run
from r2m.training.trainer import Trainer

MakeConfig = Callable[..., Config]
TextRecipe = Callable[..., str]
SweepFile = Callable[..., str]
MakeSweep = Callable[..., Any]

ROWS = [{"prompt": "my mom sold my tv .", "text": "x"}] * 8


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def commands() -> Iterator[bytes]:
    """The command lines of all processes on this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended since
            yield path.read_bytes()


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def r2m(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command line."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["r2m", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ended(ended.value.code if isinstance(ended.value.code, int) else 0, out, err)

    return run


def assert_refused(ended: Ended, *said: str) -> None:
    """One line on standard error, and no traceback."""
    assert ended.code == 2, ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    for part in said:
        assert part in ended.err


def recipe_file(tmp_path: Path, config: Config) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(path)


class TestSettings:
    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("algorithm.responses=1", ["algorithm.responses = 1", "greater than or equal to 2"]),
            ("algorithm.responses=2", ["reward.alpha = 0.5 needs algorithm.responses >= 3 (it is 2)"]),
            ("algorithm.temperature=0", ["algorithm.temperature = 0"]),
            ("algorithm.lr=fast", ["algorithm.lr = 'fast'"]),
            ("algorithm.nothing=1", ["algorithm.nothing: unknown key"]),
            ("reward.omega_min=1.5", ["reward.omega_min = 1.5"]),
            ("nonsense", ["--set 'nonsense': expected key=value"]),
            ("run.workers=3", ["algorithm.queries = 4 must be a multiple of minibatches * workers = 3"]),
            ("algorithm.max_response_tokens=64", ["together at most the models' context of 64 tokens"]),
        ],
    )
    def test_one_line(
        self, r2m, make_config: MakeConfig, tmp_path: Path, storage: Path, override: str, said: list[str]
    ) -> None:
        recipe = recipe_file(tmp_path, make_config())
        assert_refused(r2m("train", recipe, "--set", override), *said)
        assert not storage.exists()

    @pytest.mark.parametrize("recipe", ["no-such-recipe", "missing.yaml"])
    def test_no_such_recipe(self, r2m, recipe: str) -> None:
        assert_refused(r2m("train", recipe), f"recipe = {recipe!r}")

    def test_no_recipe(self, r2m) -> None:
        assert_refused(r2m("train"), "RECIPE: missing", "forum")

    def test_a_cluster_that_is_not_there_or_too_small(
        self, r2m, make_config: MakeConfig, tmp_path: Path, storage: Path
    ) -> None:
        recipe = recipe_file(tmp_path, make_config("algorithm.queries=4096", "run.eval_every=0"))
        assert_refused(r2m("train", recipe, "--workers", "4096"), "run.workers = 4096: each takes a cpu")
        assert not storage.exists()


class TestTyped:
    """Words that no command takes."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("train", "forum", "more"), "unexpected extra argument"),
            (("train", "forum", "--colour", "red"), "No such option: --colour"),
            (("train", "forum", "--workers", "two"), "--workers"),
            (("train", "forum", "--workers", "0"), "run.workers = 0: "),
            (("train", "forum", "--set"), "--set"),
            (("dance",), "No such command 'dance'"),
            (("sync",), "Missing argument"),
            (("train", ""), "RECIPE: missing"),
            (("train", "x" * 300 + ".yaml"), "no such file"),
            (("train", "forum", "--storage", ""), "--storage '': input should be a name"),
            (("train", "forum", "--storage", "a" * 256), "no name of a file may be longer than 255 bytes"),
            (("sweep", "s.yaml", "--storage", " "), "--storage ' ': input should be a name"),
            (("ui", "--storage", ""), "--storage '': "),
            (("sync", "x", "--storage", ""), "--storage '': "),
            (("compare", "x", "--storage", ""), "--storage '': "),
            (("paper", "--storage", ""), "--storage '': "),
            (("paper", "--recipe", "forum", "--name", "*"), "--name '*': "),
            (("paper", "--seeds", "1000000000"), "--seeds"),
            (("train", "forum", "--name", ""), "--name '': letters, digits"),
            (("train", "forum", "--name", "a" * 101), "100 at most"),
            (("train", "forum", "--name", "a/b"), "--name 'a/b': "),
            (("train", "--resume", "x" * 300), "RUN = 'x"),
            (("train", "--resume", "../x"), "RUN = '../x': not in"),
            (("sweep", "status", "x" * 300), "SWEEP = 'x"),
            (("sweep", "--resume", "../x"), "SWEEP = '../x': not in"),
            (("sync", "x" * 300), "NAME = 'x"),
            (("sync", "../.."), "NAME = '../..': not in"),
            (("compare", "x" * 300), "RUN: no journal in"),
            (("evaluate", "x" * 300), "RUN = 'x"),
            (("train", "forum", "--address", ""), "--address '': no Ray cluster answers"),
            (("sft", "m", "d", "--out", "o", "--lr", "nan"), "--lr"),
            (("sft", "m", "d", "--out", "o", "--device", "tpu"), "--device 'tpu': cpu, or a GPU that is there"),
            (("sft", "m", "d", "--out", "o", "--seed", "-1"), "--seed"),
        ],
    )
    def test_one_line(
        self, r2m, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert_refused(r2m(*words), said)
        assert list(tmp_path.iterdir()) == []

    def test_a_storage_that_is_a_file(
        self, r2m, make_config: MakeConfig, sweep_file: SweepFile, tmp_path: Path
    ) -> None:
        recipe, sweep = recipe_file(tmp_path, make_config()), sweep_file()
        before = sorted(tmp_path.rglob("*"))
        for storage in (recipe, f"{recipe}/inside"):
            for words in (("train", recipe), ("sweep", sweep)):
                assert_refused(r2m(*words, "--storage", storage), "recipe.yaml is no folder")
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_refused_address_of_mlflow_leaves_no_run(
        self, r2m, make_config: MakeConfig, sweep_file: SweepFile, tmp_path: Path, storage: Path
    ) -> None:
        recipe = recipe_file(tmp_path, make_config())
        assert_refused(r2m("train", recipe, "--set", "run.tracking_uri=http://me:hunter2@host"), "http://***@host")
        uri = ("--tracking-uri", "http://host?token=hunter2")
        assert_refused(r2m("sweep", sweep_file(), "--storage", str(storage), *uri), "a secret here would be logged")
        assert not storage.exists()

    def test_no_cluster_to_be_found(
        self, r2m, make_config: MakeConfig, tmp_path: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if any(b"gcs_server" in command for command in commands()):
            pytest.skip("a Ray cluster runs on this machine, which --address auto finds")
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))  # where Ray looks for the last one started
        recipe = recipe_file(tmp_path, make_config())
        assert_refused(r2m("train", recipe, "--address", "auto"), "--address 'auto': no Ray cluster answers there")
        assert not storage.exists()


class TestData:
    """Each is refused before a run is started."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, storage: Path):
        yield
        assert not storage.exists()

    def test_an_empty_file(self, r2m, text_recipe: TextRecipe) -> None:
        assert_refused(r2m("train", text_recipe([])), "task.data = ", "no rows; at least one is needed")

    def test_no_such_file(self, r2m, text_recipe: TextRecipe, tmp_path: Path) -> None:
        recipe = text_recipe(data=str(tmp_path / "none.jsonl"))
        assert_refused(r2m("train", recipe), "none.jsonl': no such file")

    def test_a_column_that_is_not_there(self, r2m, text_recipe: TextRecipe) -> None:
        recipe = text_recipe(ROWS, prompt_column="query")
        assert_refused(r2m("train", recipe), "no column query; the data has prompt, text")

    def test_a_broken_line(self, r2m, text_recipe: TextRecipe, tmp_path: Path) -> None:
        recipe = text_recipe(ROWS)
        with open(tmp_path / "data.jsonl", "a") as file:
            file.write('{"prompt": "a')
        assert_refused(r2m("train", recipe), "line 9 is not JSON")

    def test_a_prompt_longer_than_the_context(self, r2m, text_recipe: TextRecipe) -> None:
        recipe = text_recipe([*ROWS, {"prompt": " ".join(["my"] * 60)}])
        assert_refused(r2m("train", recipe), "its context is 64 tokens; the longest prompt has 60")

    def test_a_conversation_without_a_chat_template(self, r2m, text_recipe: TextRecipe) -> None:
        assert_refused(r2m("train", text_recipe(ROWS, as_chat=True)), "its tokenizer has no chat template")

    def test_fewer_rows_than_are_held_out(self, r2m, text_recipe: TextRecipe) -> None:
        assert_refused(r2m("train", text_recipe(ROWS, held_out=8)), "task.held_out = 8")


class TestModels:
    def test_two_labels(self, r2m, text_recipe: TextRecipe, tmp_path: Path, storage: Path) -> None:
        small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = LlamaForSequenceClassification(LlamaConfig(**small, vocab_size=len(forum_tokenizer()), num_labels=2))
        save_model(tmp_path / "two", model, forum_tokenizer())
        ended = r2m("train", text_recipe(ROWS), "--set", f"reward.model={tmp_path / 'two'}")
        assert_refused(ended, "reward.model = ", "it has 2 labels")
        assert not storage.exists()

    @pytest.mark.parametrize("field", ["policy.model", "reward.model"])
    def test_a_folder_that_is_not_there(
        self, r2m, text_recipe: TextRecipe, tmp_path: Path, storage: Path, field: str
    ) -> None:
        ended = r2m("train", text_recipe(ROWS), "--set", f"{field}={tmp_path / 'none'}")
        assert_refused(ended, f"{field} = ", "none': no such folder; a folder or hub id is allowed")
        assert not storage.exists()

    def test_a_language_model_is_no_reward_model(
        self, r2m, text_recipe: TextRecipe, forum_models: tuple[str, str], storage: Path
    ) -> None:
        ended = r2m("train", text_recipe(ROWS), "--set", f"reward.model={forum_models[0]}")
        assert_refused(ended, "reward.model = ", "it has 2 labels")
        assert not storage.exists()

    @pytest.mark.parametrize("dry", [(), ("--dry-run",)])
    def test_damaged_folders(
        self, r2m, text_recipe: TextRecipe, forum_models: tuple[str, str], tmp_path: Path, storage: Path, dry: tuple
    ) -> None:
        recipe = text_recipe(ROWS)

        def refused(damage: Callable[[Path], object], said: str) -> None:
            for field, model in zip(
                ("policy.model", "reward.model", "run.judge"), (*forum_models, forum_models[1]), strict=True
            ):
                shutil.copytree(model, tmp_path / "copy")
                damage(tmp_path / "copy")
                assert_refused(r2m("train", recipe, *dry, "--set", f"{field}={tmp_path / 'copy'}"), field, said)
                shutil.rmtree(tmp_path / "copy")

        def config(**values: object) -> Callable[[Path], object]:
            def change(folder: Path) -> None:
                path = folder / "config.json"
                path.write_text(json.dumps(json.loads(path.read_text()) | values))

            return change

        weights = "model.safetensors"
        refused(lambda f: (f / weights).unlink(), "no weights: neither model.safetensors nor")
        refused(lambda f: (f / weights).rename(f / "pytorch_model.bin"), "pickles (pytorch_model.bin)")
        refused(lambda f: os.truncate(f / weights, 2000), "is damaged, or cut short")
        refused(lambda f: os.truncate(f / weights, 5), "is damaged, or cut short")
        refused(lambda f: (f / weights).write_text("text of no use"), "is damaged, or cut short")
        refused(lambda f: (f / "config.json").write_text("text of no use"), "is needed")
        refused(lambda f: (f / "config.json").write_text("[" * 100_000), "is needed")
        refused(config(hidden_size="big"), "hidden_size")
        assert not storage.exists()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("hidden_size", -32),
            ("num_hidden_layers", 10**9),
            ("num_attention_heads", 0),
            ("max_position_embeddings", -1),
        ],
    )
    def test_sizes_of_no_model(
        self, r2m, text_recipe: TextRecipe, forum_models: tuple[str, str], tmp_path: Path, key: str, value: int
    ) -> None:
        shutil.copytree(forum_models[0], tmp_path / "copy")
        path = tmp_path / "copy" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        ended = r2m("train", text_recipe(ROWS), "--dry-run", "--set", f"policy.model={tmp_path / 'copy'}")
        assert_refused(ended, "policy.model = ")

    @pytest.mark.parametrize("dry", [(), ("--dry-run",)])
    def test_adapters_on_no_layer(self, r2m, text_recipe: TextRecipe, storage: Path, dry: tuple) -> None:
        ended = r2m("train", text_recipe(ROWS), *dry, "--set", "policy.lora.targets=[q_proj, q_prj]")
        assert_refused(ended, "policy.lora.targets = 'q_prj': ", "some of q_proj, k_proj, v_proj, o_proj, gate_proj")
        assert not storage.exists()

    def test_adapters_whose_model_is_gone(
        self, r2m, text_recipe: TextRecipe, make_trainer: Callable[..., Trainer], tmp_path: Path, storage: Path
    ) -> None:
        make_trainer("policy.lora.rank=2").export(tmp_path / "run")
        chosen = ("--dry-run", "--set", f"policy.model={tmp_path / 'run' / 'policy'}")
        assert r2m("train", text_recipe(ROWS), *chosen).code == 0
        path = tmp_path / "run" / "policy" / "adapter_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "gone")})
        )
        ended = r2m("train", text_recipe(ROWS), *chosen)
        assert_refused(ended, "policy.model = ", "the model that its adapters are to, ", "gone', is not there")
        assert not storage.exists()


class TestRuns:
    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (lambda start: start.pop("config"), "line 1: not a record"),
            (lambda start: start.update(config={}), "task: missing"),
            (lambda start: start.update(config=3), "line 1: not a record: config"),
            (lambda start: start.update(kind="round"), "line 1: not a record"),
        ],
    )
    def test_a_journal_without_its_settings(
        self, r2m, make_config: MakeConfig, storage: Path, broken: Callable[[dict], object], said: str
    ) -> None:
        path = new_run(make_config(), "mine").journal
        start = json.loads(path.read_text())
        broken(start)
        path.write_text(json.dumps(start) + "\n")
        assert_refused(r2m("train", "--resume", "mine", "--storage", str(storage)), said)

    def test_a_round_without_its_step(self, r2m, make_config: MakeConfig, storage: Path) -> None:
        run = new_run(make_config(), "mine")
        with open(run.journal, "a") as file:
            file.write('{"time": 1.0, "kind": "round", "metrics": {}}\n')
        assert_refused(r2m("train", "--resume", "mine", "--storage", str(storage)), "line 2: not a record")

    def test_a_name_that_is_taken(self, r2m, make_config: MakeConfig, tmp_path: Path) -> None:
        config = make_config()
        new_run(config, "mine")
        ended = r2m("train", recipe_file(tmp_path, config), "--name", "mine")
        assert_refused(ended, "--name 'mine': there is such a run; go on with it by --resume mine")

    def test_an_unknown_run(self, r2m, storage: Path) -> None:
        for command, field in ((("train", "--resume"), "RUN"), (("sync",), "NAME")):
            ended = r2m(*command, "none", "--storage", str(storage))
            assert_refused(ended, f"{field} = 'none': not in", "there are: none")
        assert not storage.exists()

    def test_a_finished_run(self, r2m, make_config: MakeConfig, storage: Path) -> None:
        with Journal(new_run(make_config(), "mine").journal) as journal:
            journal.event("finished")
        ended = r2m("train", "--resume", "mine", "--storage", str(storage))
        assert_refused(ended, "run = 'mine': it has finished; there is nothing to resume")

    def test_a_run_that_is_running(self, r2m, make_config: MakeConfig, storage: Path) -> None:
        with Journal(new_run(make_config(), "mine").journal):
            ended = r2m("train", "--resume", "mine", "--storage", str(storage))
        assert_refused(ended, "another process is writing this run")

    @pytest.mark.parametrize("extra", [("forum",), ("--workers", "2"), ("--set", "algorithm.lr=1"), ("--dry-run",)])
    def test_a_resumed_run_is_as_it_was_configured(self, r2m, extra: tuple[str, ...]) -> None:
        assert_refused(r2m("train", *extra, "--resume", "mine"), "--resume goes on with a run as it was")


class TestSweeps:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "sweep.yaml': no such file"),
            ("a: [1", "not valid YAML"),
            ("- recipe", "expected a mapping with recipe, parameters and objectives"),
            ("recipe: forum\ncolour: red\nobjectives: []", "colour: unknown key; allowed: recipe, set,"),
        ],
    )
    def test_a_file_that_is_none(self, r2m, tmp_path: Path, storage: Path, text: str | None, said: str) -> None:
        if text is not None:
            (tmp_path / "sweep.yaml").write_text(text)
        assert_refused(r2m("sweep", str(tmp_path / "sweep.yaml"), "--storage", str(storage)), said)
        assert not storage.exists()

    @pytest.mark.parametrize(
        ("sections", "said"),
        [
            ({"parameters": {"reward.alfa": {"uniform": [0, 1]}}}, "parameters.reward.alfa: unknown key"),
            ({"parameters": {"reward.alpha": {"uniform": [0, 2]}}}, "parameters.reward.alpha = 2.0: "),
            (
                {"parameters": {"reward.alpha": {"uniform": [False, True]}}},
                "uniform.0 = False: input should be a number",
            ),
            ({"parameters": {"algorithm.responses": {"int": [3, 10**9]}}}, "more than 10000 combinations"),
            ({"parameters": {"algorithm.responses": {"int": [3, 10**90]}}}, "algorithm.responses = 1"),
            ({"baselines": {"x" * 300: {"reward.feedback": False}}}, "100 printable characters at most"),
            ({"baselines": {"a\x1b[31m": {"reward.feedback": False}}}, "100 printable characters at most"),
            ({"seeds": [True]}, "seeds.0 = True: "),
            ({"budget": {"trials": 10**30}}, "budget.trials = 1"),
            ({"set": {"run.judge": ""}}, "run.judge = '': "),
            ({"set": {"run.judge": "./none"}}, "none': no such folder"),
            ({"objectives": [{"metric": "reward/proxy"}]}, "it would select the model that flatters itself"),
            ({"budget": {"trials": 4096, "concurrent": 4096}}, "budget.concurrent = 4096: "),
        ],
    )
    def test_one_line(self, r2m, sweep_file: SweepFile, storage: Path, sections: dict[str, Any], said: str) -> None:
        assert_refused(r2m("sweep", sweep_file(**sections), "--storage", str(storage)), said)
        assert not storage.exists()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("exit()", "SystemExit: "),
            ("import sys; sys.exit(0)", "SystemExit: 0"),
            ("def f(): f()\nf()", "RecursionError: "),
            ("x = (", "SyntaxError: "),
            (
                "def suggest(t): ...\nSWEEP = {'seeds': [object()]}",
                "SWEEP: text, numbers, truths, lists and mappings",
            ),
            ("def suggest(t): ...\nSWEEP = {}\nSWEEP['a'] = SWEEP", "SWEEP: text, numbers, truths, lists and"),
        ],
    )
    def test_a_python_file_of_no_use(self, r2m, tmp_path: Path, storage: Path, text: str, said: str) -> None:
        (tmp_path / "sweep.py").write_text(text)
        assert_refused(r2m("sweep", str(tmp_path / "sweep.py"), "--storage", str(storage)), said)
        assert not storage.exists()

    @pytest.mark.parametrize("words", [(), ("status",), ("status", "a", "b"), ("a.yaml", "--resume", "b")])
    def test_what_to_give(self, r2m, words: tuple[str, ...]) -> None:
        assert_refused(r2m("sweep", *words), "status" if words == ("status",) else "give a sweep file, or status")

    @pytest.mark.parametrize("command", [("status", "none"), ("--resume", "none")])
    def test_an_unknown_sweep(self, r2m, storage: Path, command: tuple[str, ...]) -> None:
        ended = r2m("sweep", *command, "--storage", str(storage))
        assert_refused(ended, "SWEEP = 'none': not in", "there are: none")
        assert not storage.exists()

    @pytest.mark.parametrize(
        "extra", [("--name", "other"), ("--workers", "2"), ("--tracking-uri", "x"), ("--dry-run",)]
    )
    def test_a_resumed_sweep_is_as_it_was_configured(self, r2m, extra: tuple[str, ...]) -> None:
        assert_refused(r2m("sweep", "--resume", "mine", *extra), "--resume goes on with a sweep as it was")

    def test_a_name_that_is_taken(self, r2m, sweep_file: SweepFile, make_sweep: MakeSweep, storage: Path) -> None:
        make_sweep(name="mine")
        ended = r2m("sweep", sweep_file(), "--name", "mine", "--storage", str(storage))
        assert_refused(ended, "--name 'mine': there is such a sweep; go on with it by --resume mine")

    def test_a_finished_sweep(self, r2m, make_sweep: MakeSweep, storage: Path) -> None:
        with Journal(make_sweep().folder / "journal.jsonl") as journal:
            journal.event("finished")
        ended = r2m("sweep", "--resume", "tiny", "--storage", str(storage))
        assert_refused(ended, "SWEEP = 'tiny': it has finished; there is nothing to resume")

    def test_a_sweep_that_is_running(self, r2m, make_sweep: MakeSweep, storage: Path) -> None:
        with Journal(make_sweep().folder / "journal.jsonl"):
            ended = r2m("sweep", "--resume", "tiny", "--storage", str(storage))
        assert_refused(ended, "another process is writing this run")

    def test_addresses_of_no_use(self, r2m, sweep_file: SweepFile, storage: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            command = ("sweep", sweep_file(), "--storage", str(storage), "--address")
            assert_refused(r2m(*command, f"ray://{address}"), "start it on a node of the cluster")
        assert_refused(r2m(*command, address), f"--address '{address}': no Ray cluster answers")
        assert not storage.exists()

    def test_dry_run_prints_the_plan_and_writes_nothing(
        self, r2m, sweep_file: SweepFile, storage: Path, tmp_path: Path
    ) -> None:
        """(3 trials + 2 baselines) of one seed, and (1 + 2) arms on two: 11 runs of 64 trajectories."""
        file = sweep_file(budget={"trials": 3, "evaluations": 2})
        before = sorted(tmp_path.rglob("*"))
        ended = r2m("sweep", file, "--dry-run", "--storage", str(storage))
        assert (ended.code, ended.err) == (0, "")
        assert "11, trials, baselines and confirmation together" in ended.out
        assert "at most 704 in all" in ended.out
        assert sorted(tmp_path.rglob("*")) == before

    def test_status(self, r2m, make_sweep: MakeSweep, storage: Path) -> None:
        folder = make_sweep().folder
        ended = r2m("sweep", "status", "tiny", "--storage", str(storage))
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("tiny: interrupted\n")
        assert ended.out.endswith(f"sweep --resume tiny --storage {storage}\n")
        assert "No trial has started yet." in ended.out
        assert f"report:    {folder / 'report.html'}\n" in ended.out
        assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--dry-run", "--assume", "1x8"), 0, "fits 1 GPU of 7.5 GiB: at its fullest each takes about CUDA 0.5 + "),
        (("--dry-run", "--assume", "2x8", "--workers", "3"), 2, "error: does not fit 2 GPUs of 7.5 GiB: run.worker"),
        (("--dry-run", "--assume", "eight"), 2, "error: --assume 'eight': expected GPUs x GB of each, such as 8x80"),
        (("--assume", "8x80"), 2, "error: --assume 8x80: it plans, and runs nothing: give it with --dry-run"),
    ],
)  # fmt: skip
def test_a_machine_that_is_assumed(r2m, words: tuple[str, ...], code: int, line: str) -> None:
    ended = r2m("train", "forum", *words)
    assert ended.code == code
    assert (ended.out if code == 0 else ended.err).splitlines()[-1].startswith(line)


def test_dry_run_prints_a_recipe_and_a_plan_and_writes_nothing(r2m, make_config: MakeConfig, tmp_path: Path) -> None:
    """The recipe is the configuration with its overrides, and can be run; long values stay on their lines."""
    storage = str(tmp_path / ("long-" * 30))
    config = make_config("run.seed=9", f"run.storage={storage}")
    ended = r2m(
        "train", recipe_file(tmp_path, make_config()), "--dry-run", "--set", "run.seed=9", "--storage", storage
    )
    assert (ended.code, ended.err) == (0, "")
    printed, plan = ended.out.split("Plan of ")
    assert "16 a round, 64 in all" in plan
    again = tmp_path / "again.yaml"
    again.write_text(printed.rstrip())
    assert load(str(again)) == config
    assert not Path(storage).exists()


def test_as_a_program(tmp_path: Path) -> None:
    """The console script itself, once."""
    ended = subprocess.run(
        [Path(sys.executable).with_name("r2m"), "train", "nothing"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: recipe = 'nothing': not one of ")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class TestDataInEveryCommand:
    """`train`, `sft` and `reward-model` on files that cannot be used; `evaluate` is in test_assessment_pairs."""

    @pytest.mark.parametrize("command", ["train", "sft", "reward-model"])
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("rows.txt", b"a\n", "a local file must end in .jsonl, "),
            ("rows.csv", b"question,answer\na,b\n", "the data has question, answer"),
            (
                "rows.jsonl",
                b'{"prompt": "a", "chosen": "b", "rejected": "c", "completion": "d"}\n{"prompt": "\\ud800"}\n' * 2,
                "2 of 4 rows cannot be used, and at most 10% may be; the first: line 2: it has no c",
            ),
            (
                "rows.json",
                b'[{"prompt": [{"role": null, "content": "a"}], "chosen": "b", "rejected": "c", "completion": "d"}]',
                "the first: row 0: a message of prompt has no role of text: role = None",
            ),
        ],
    )
    def test_one_line_with_file_and_row(
        self, r2m, text_recipe: TextRecipe, forum_models: tuple[str, str], tmp_path: Path, storage: Path,
        command: str, name: str, content: bytes, said: str,
    ) -> None:  # fmt: skip
        data, new = tmp_path / name, tmp_path / "new"
        data.write_bytes(content)
        words = (
            (text_recipe(data=str(data)),) if command == "train" else (forum_models[0], str(data), "--out", str(new))
        )
        assert_refused(r2m(command, *words), f"data = {str(data)!r}: ", said)
        assert not new.exists()
        assert not storage.exists()
