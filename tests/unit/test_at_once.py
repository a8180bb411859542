"""What answers at once: a plan, a status, a refusal, help. What they load is looked at, not how long it takes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r2m.config import recipes
from tests.conftest import MakeSweep, SweepFile, TextRecipe
from tests.made_executions import MadeExecutions

HEAVY = {"torch", "transformers", "tokenizers", "ray", "mlflow", "sklearn", "pandas", "pyarrow", "datasets"}
PROGRAM = """
import sys
from r2m.cli import main
try:
    main()
finally:
    print("loaded", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
Answered = Callable[..., str]


@pytest.fixture
def at_once(tmp_path: Path) -> Answered:
    """Runs a command in a process of its own, without a hub; checks its exit code and what it has loaded."""

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=300,
            cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        *said, loaded = done.stderr.splitlines()
        assert loaded.startswith("loaded ")
        assert HEAVY & set(loaded.split()) == set()
        return done.stdout.lstrip("\n") + "\n".join(said)  # a bar that ends leaves an empty line

    return run


COMMANDS = (
    *("", "train", "sweep", "compare", "evaluate", "sft", "models", "paper", "ui", "pipeline"),
    *("pipeline run", "pipeline status", "pipeline gc"),
)


@pytest.mark.parametrize("command", [tuple(words.split()) for words in COMMANDS])
def test_help(at_once: Answered, command: tuple[str, ...]) -> None:
    assert "Usage" in at_once(*command, "--help")


@pytest.mark.parametrize("recipe", [r for r in recipes() if not r.startswith("smollm2")])
def test_the_plan_of_a_recipe(at_once: Answered, recipe: str) -> None:
    assert f"Plan of {recipe}" in at_once("train", recipe, "--dry-run")


def test_the_plan_of_local_models(at_once: Answered, text_recipe: TextRecipe) -> None:
    assert "Plan of text" in at_once("train", text_recipe([{"prompt": "mom"}] * 8), "--dry-run")


def test_the_plan_of_a_sweep(at_once: Answered, sweep_file: SweepFile) -> None:
    assert "Plan of" in at_once("sweep", sweep_file(), "--dry-run")


def test_the_status_of_a_sweep(at_once: Answered, make_sweep: MakeSweep) -> None:
    opened = make_sweep()
    for _ in range(2):
        assert at_once("sweep", "status", "tiny", "--storage", opened.storage).startswith("tiny: interrupted")


PIPELINE = str(Path(__file__).resolve().parents[2] / "pipelines" / "forum_nightly.yaml")


def test_what_a_pipeline_would_do(at_once: Answered) -> None:
    assert "forum_nightly: what a run would do" in at_once("pipeline", "run", PIPELINE, "--dry-run")


def test_how_pipelines_stand(at_once: Answered, tmp_path: Path) -> None:
    made = MadeExecutions(tmp_path / "storage")
    made.execution(1)
    where = ("--storage", str(made.storage))
    assert "Steps of night-20261201T0300Z-" in at_once("pipeline", "status", "night", *where)
    assert "nothing has been removed" in at_once("pipeline", "gc", "--keep", "0", *where)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pipeline", "run", "none.yaml"), "no such file"),
        (("pipeline", "run", PIPELINE, "--set", "none=1"), "--set 'none=1'"),
        (("pipeline", "status", "none"), "NAME = 'none'"),
        (("pipeline", "gc", "none", "--keep", "1"), "NAME = 'none'"),
        (("train", "none"), "recipe = 'none'"),
        (("train", "forum", "--set", "reward.alpha=x"), "reward.alpha = 'x'"),
        (("train", "forum", "--set", "run.workers=0"), "run.workers = 0"),
        (("train", "forum", "--set", "reward.model=./none"), "reward.model = "),
        (("train", "forum", "--set", "policy.lora.targets=q_prj"), "policy.lora.targets = 'q_prj'"),
        (("train", "forum", "--set", "policy.model=no/where"), "the hub cannot be reached"),
        (("train", "--resume", "none"), "RUN = 'none'"),
        (("train", "forum", "--address", "127.0.0.1:1"), "--address"),
        (("sweep", "none.yaml"), "no such file"),
        (("sweep", "status", "none"), "SWEEP = 'none'"),
        (("compare", "none"), "no journal"),
        (("evaluate", "none"), "RUN = 'none'"),
        (("evaluate", "none", "--against", "nobody"), "--against 'nobody'"),
        (("paper", "--set", "reward.alpha=x"), "reward.alpha = 'x'"),
        (("sync", "none"), "NAME = 'none'"),
        (("models", "fetch", "none"), "MODEL = 'none'"),
    ],
)
def test_a_refusal(at_once: Answered, words: tuple[str, ...], said: str) -> None:
    (line,) = at_once(*words, code=2).splitlines()
    assert line.startswith("error: ")
    assert said in line
