"""Runs as folders: what starts, what is refused with nothing left behind, and what can be gone on with."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from r2m.cli.common import say_left_out
from r2m.config import Config, ForumTask, load, validate
from r2m.errors import UserError
from r2m.files import folder_made_whole
from r2m.runs.folder import existing_folder, run_folder
from r2m.runs.journal import Journal, read
from r2m.tasks.forum import forum_task, forum_tokenizer
from r2m.tasks.prompt import prompt_ids
from r2m.training import start
from r2m.training.start import new_run, open_run

MakeConfig = Callable[..., Config]
TextRecipe = Callable[..., str]
Command = Callable[..., tuple[int, str, str]]
ReadOnly = tuple[Path, Callable[[], None]]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


class TestNewRun:
    def test_its_folder_says_what_it_is(self, make_config: MakeConfig, storage: Path) -> None:
        config = make_config("run.seed=3")
        run = new_run(config, "mine")
        assert run.folder == storage / "runs" / "mine"
        assert validate(yaml.safe_load((run.folder / "config.yaml").read_text())) == config
        view = read(run.journal)
        assert (view.run_id, view.arm, view.status) == ("mine", "R2M", "running")
        assert view.start["config_hash"] == config.digest()
        assert view.start["task"] == "forum"
        assert view.start["versions"]["torch"]
        assert [d["split"] for d in view.start["datasets"]] == ["train", "held-out"]

    def test_the_data_hash_is_of_the_data_alone(self, make_config: MakeConfig) -> None:
        def data_hash(name: str, *overrides: str) -> str:
            return read(new_run(make_config(*overrides), name).journal).start["data_hash"]

        assert data_hash("a") == data_hash("b", "run.seed=1", "algorithm.lr=1")
        assert data_hash("c", "task.seed=1") != data_hash("a2")

    def test_a_name_of_its_own(self, make_config: MakeConfig) -> None:
        a, b = (new_run(make_config("reward.feedback=off", "run.seed=4")) for _ in range(2))
        assert a.name.startswith("forum-rloo-s4-")
        named = new_run(make_config("algorithm.advantage=reinforce_pp", "reward.alpha=1", "run.seed=4"))
        assert named.name.startswith("forum-r2m-reinforce-no-bt-s4-")
        assert read(named.journal).arm == "R2M+REINFORCE++, no BT"
        assert a.name != b.name

    def test_of_a_group(self, make_config: MakeConfig) -> None:
        group, own = {"experiment": "r2m/sweeps/a", "parent": "a"}, {"r2m.arm": "R2M", "r2m.seed": "0"}
        start = read(new_run(make_config(), "a-t000-s0", tags={"r2m.role": "search"}, **group).journal).start
        assert {key: start[key] for key in group} == group
        assert start["tags"] == own | {"r2m.role": "search"}
        alone = read(new_run(make_config(), "alone").journal).start
        assert alone.keys() == start.keys() - group.keys()
        assert alone["tags"] == own

    def test_mlflow_is_in_the_storage_unless_said_otherwise(self, make_config: MakeConfig, storage: Path) -> None:
        assert new_run(make_config()).tracking_uri == f"sqlite:///{storage}/mlflow.db"
        uri = "http://127.0.0.1:1"
        assert new_run(make_config(f"run.tracking_uri={uri}")).tracking_uri == uri

    @pytest.mark.parametrize("name", ["a b", "a/b", "../a", "ä", "a\n", "..", ".", "-a", ".hidden"])
    def test_names_that_are_no_folders_of_a_run(self, make_config: MakeConfig, storage: Path, name: str) -> None:
        with pytest.raises(UserError, match="letters, digits"):
            new_run(make_config(), name)
        assert not storage.exists()

    def test_a_name_that_is_taken(self, make_config: MakeConfig) -> None:
        run = new_run(make_config(), "mine")
        before = run.journal.read_bytes()
        with pytest.raises(UserError, match=r"--name 'mine': there is such a run; go on with it by --resume"):
            new_run(make_config(), "mine")
        assert run.journal.read_bytes() == before

    def test_of_two_at_once_one_has_the_name(self, make_config: MakeConfig, storage: Path) -> None:
        """The others have got past the check that the name is free; each gets one line, and nothing is left."""
        config, at_once = make_config(), threading.Barrier(4)

        def start(_: int) -> str:
            try:
                with folder_made_whole(storage / "runs" / "mine", "--name 'mine'") as aside:
                    (aside / "journal.jsonl").touch()
                    at_once.wait()
            except UserError as error:
                return str(error)
            return "made"

        with ThreadPoolExecutor(4) as pool:
            said = sorted(pool.map(start, range(4)))
        lost = "--name 'mine': another process has just taken that name; take another"
        assert said == [lost, lost, lost, "made"]
        assert [path.name for path in (storage / "runs").iterdir()] == ["mine"]
        with pytest.raises(UserError, match="there is such a run"):
            new_run(config, "mine")

    def test_nothing_is_left_of_one_that_cannot_start(self, make_config: MakeConfig, storage: Path) -> None:
        with pytest.raises(TypeError, match="no_such_field"):
            new_run(make_config(), "mine", no_such_field=1)
        assert list((storage / "runs").iterdir()) == []


class TestOpenRun:
    def test_a_stopped_run(self, make_config: MakeConfig, storage: Path) -> None:
        run = new_run(make_config(), "mine")
        (run.folder / "stop").touch()
        again = open_run(str(storage), "mine")
        assert again == run
        assert not (run.folder / "stop").exists()

    def test_a_folder_that_moved(self, make_config: MakeConfig, storage: Path, tmp_path: Path) -> None:
        config = new_run(make_config(), "mine").config
        storage.rename(tmp_path / "elsewhere")
        again = open_run(str(tmp_path / "elsewhere"), "mine")
        assert again.config.run.storage == str(tmp_path / "elsewhere")
        assert again.config.digest() == config.digest()

    def test_a_run_that_is_not_there(self, make_config: MakeConfig, storage: Path) -> None:
        with pytest.raises(UserError, match=r"^RUN = 'b': not in .*; there are: none$"):
            open_run(str(storage), "b")
        new_run(make_config(), "a")
        with pytest.raises(UserError, match=r"^RUN = 'b': not in .*; there are: a$"):
            open_run(str(storage), "b")
        assert existing_folder(str(storage), "a") == run_folder(str(storage), "a")

    def test_a_finished_run(self, make_config: MakeConfig, storage: Path) -> None:
        with Journal(new_run(make_config(), "mine").journal) as journal:
            journal.event("finished")
        with pytest.raises(UserError, match=r"^run = 'mine': it has finished; there is nothing to resume$"):
            open_run(str(storage), "mine")

    def test_a_run_that_is_running(self, make_config: MakeConfig, storage: Path) -> None:
        run = new_run(make_config(), "mine")
        with (
            Journal(run.journal),
            pytest.raises(UserError, match=r"^run = 'mine': another process is writing this run$"),
        ):
            open_run(str(storage), "mine")


class TestReadOnly:
    def test_one_line_and_nothing_written(
        self, make_config: MakeConfig, text_recipe: TextRecipe, r2m: Command, read_only: ReadOnly, tmp_path: Path
    ) -> None:
        disk, freeze = read_only
        run = new_run(make_config(f"run.storage={disk}"), "mine")
        recipe = tmp_path / "tiny.yaml"
        recipe.write_text(yaml.safe_dump(run.config.model_dump(mode="json")))
        freeze()
        for words, said in (
            (("--resume", "mine", "--storage", str(disk)), f"run = 'mine': {run.folder} cannot be written to"),
            ((str(recipe), "--name", "new"), f"run.storage = '{disk}': {disk} cannot be written to"),
        ):
            code, _, err = r2m("train", *words)
            assert (code, err.splitlines()) == (2, [f"error: {said}"])


class TestPrompts:
    ROWS = [{"prompt": "my mom sold my tv ."}] * 3 + [{"prompt": " ".join(["my"] * 60)}]

    def config(self, text_recipe: TextRecipe, *overrides: str, **task: object) -> Config:
        return load(text_recipe(self.ROWS, **task), overrides)

    def test_the_forums_are_counted_without_a_tokenizer(self) -> None:
        task, tokenizer = ForumTask(posts=50, held_out=20), forum_tokenizer()
        lengths, datasets = start._forum_prompts(task, "policy.model", "reward.model")
        loaded = forum_task(task)
        counted = max(len(prompt_ids(p, tokenizer)) for p in (*loaded.train, *loaded.held_out))
        assert lengths == {"policy.model": counted, "reward.model": counted}
        assert datasets == loaded.datasets

    def test_one_that_leaves_no_room(self, text_recipe: TextRecipe, storage: Path) -> None:
        said = (
            r"^policy.model = '.*': its context is 64 tokens; the longest prompt has 60 and "
            r"algorithm.max_response_tokens is 8; set task.max_prompt_tokens to at most 56$"
        )
        with pytest.raises(UserError, match=said):
            new_run(self.config(text_recipe))
        assert not storage.exists()

    def test_one_that_just_fits(self, text_recipe: TextRecipe) -> None:
        new_run(self.config(text_recipe, "algorithm.max_response_tokens=4"))
        with pytest.raises(UserError, match="the longest prompt has 60"):
            new_run(self.config(text_recipe, "algorithm.max_response_tokens=5"))

    def test_left_out_by_its_length_it_does_no_harm(self, text_recipe: TextRecipe) -> None:
        run = new_run(self.config(text_recipe, max_prompt_tokens=56))
        assert [d["rows"] for d in read(run.journal).start["datasets"]] == [1, 2]


class TestRowsOfData:
    SAD = [{"prompt": "my mom sold my tv ."}] * 20

    def test_those_left_out_are_in_the_journal_and_said(
        self, text_recipe: TextRecipe, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe = text_recipe([*self.SAD, {"text": "x"}])
        run = new_run(load(recipe))
        train, held_out = read(run.journal).start["datasets"]
        said = "': 1 of 21 rows left out: 1: it has no prompt (first: line 21)"
        assert train["left_out"].endswith(said)
        assert "left_out" not in held_out
        say_left_out(run.journal)
        assert capsys.readouterr().err == train["left_out"] + "\n"
        say_left_out(new_run(load(text_recipe(self.SAD, held_out=3))).journal)
        assert capsys.readouterr().err == ""

    def test_a_conversation_that_a_template_refuses_is_named_by_its_line(
        self, text_recipe: TextRecipe, storage: Path, tmp_path: Path, forum_models: tuple[str, str]
    ) -> None:
        """The policy's template takes a system turn, the reward model's does not."""
        takes = "{% for m in messages %} {{ m.content }}{% endfor %}"
        refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + takes
        folders = []
        for source, template in zip(forum_models, (takes, refuses), strict=True):
            folders.append(shutil.copytree(source, tmp_path / Path(source).name))
            (folders[-1] / "chat_template.jinja").write_text(template)
        asked, system = {"role": "user", "content": "mom"}, {"role": "system", "content": "mom"}
        recipe = text_recipe([{"prompt": [asked]}] * 5 + [{"prompt": [system, asked]}])
        models = [f"{part}.model={folder}" for part, folder in zip(("policy", "reward"), folders, strict=True)]
        with pytest.raises(UserError, match=r"^task.data = '.*', line 6: .*no system") as caught:
            new_run(load(recipe, models))
        assert "\n" not in str(caught.value)
        assert not storage.exists()

    @pytest.mark.parametrize(
        ("answered", "said"),
        [
            (
                " {{ m.content }}" + " sad" * 54,
                "its context is 64 tokens; the longest prompt has 58 .* to at most 1$",
            ),
            ("", "its chat template does not show the text of an assistant's answer"),
        ],
    )
    def test_what_a_reward_model_s_template_has_around_an_answer_is_asked_first(
        self,
        text_recipe: TextRecipe,
        storage: Path,
        tmp_path: Path,
        forum_models: tuple[str, str],
        answered: str,
        said: str,
    ) -> None:
        reward = shutil.copytree(forum_models[1], tmp_path / "templated")
        policy = shutil.copytree(forum_models[0], tmp_path / "policy")
        template = "{% for m in messages %}{% if m.role == 'user' %} mom sold tv{% else %}A{% endif %}{% endfor %}"
        (policy / "chat_template.jinja").write_text(template.replace("A", " {{ m.content }}"))
        (reward / "chat_template.jinja").write_text(template.replace("A", answered))
        recipe = text_recipe([{"prompt": [{"role": "user", "content": "mom"}]}] * 5)
        with pytest.raises(UserError, match=f"templated'.*{said}"):
            new_run(load(recipe, [f"policy.model={policy}", f"reward.model={reward}"]))
        assert not storage.exists()
