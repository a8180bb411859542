"""README's section "A real language model" as printed: its commands, typed in a folder with the user's own files.

Real processes, Ray and MLflow, relative paths, a storage whose path has characters that addresses are quoted for.
Two minutes, or three where the model is still to be fetched.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from processes import R2M

from r2m.runs.journal import read
from r2m.tracking.mlflow_sink import default_tracking_uri

README = Path(__file__).parents[2] / "README.md"
POSTS = [
    "SUBREDDIT: r/pets TITLE: My dog ate a sock POST: He ate it whole and the vet said to wait. I can't sleep.",
    "SUBREDDIT: r/work TITLE: Weekends POST: My boss asks me to come in on Saturdays without pay. What do I say?",
]


def commands(heading: str) -> list[str]:
    """What is to be typed of the first block under a heading."""
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1].replace("\\\n", "").splitlines()


@pytest.mark.timeout(900)
def test_a_real_language_model(smollm2_folder: Path, tmp_path: Path) -> None:
    here = smollm2_folder.parents[1]
    pairs = [{"prompt": post, "chosen": " A fair summary.", "rejected": " no idea at all"} for post in POSTS * 2]
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (here / "posts.jsonl").write_text("".join(json.dumps({"prompt": post}) + "\n" for post in POSTS * 4))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip

    def typed(command: str, folder: Path = here) -> str:
        ended = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, text=True, capture_output=True, timeout=600
        )
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        return ended.stdout

    lines = commands("A real language model")
    assert [line.split()[1] for line in lines] == ["models", "reward-model", "train", "train"]
    said = [typed(re.sub(r"\bFILE\b", "posts.jsonl", line.replace("PAIRS", "pairs.jsonl"))) for line in lines]
    assert f"written: {here}/models/smollm2-135m-reward\n" in said[1]
    assert "Plan of smollm2_tldr" in said[2]

    storage = here / "r2m-runs"
    (folder,) = (storage / "runs").iterdir()
    view = read(folder / "journal.jsonl")
    assert (view.status, list(view.rounds)) == ("finished", [1, 2])
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert kept["policy"]["model"] == str(smollm2_folder)
    assert kept["reward"]["model"] == f"{smollm2_folder}-reward"
    assert kept["task"]["data"] == f"{here}/posts.jsonl"
    assert kept["run"]["storage"] == str(storage)

    client = MlflowClient(default_tracking_uri(storage))
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.data.metrics["reward/proxy"] == view.rounds[2]["reward/proxy"]
    assert len(list((storage / "mlartifacts").rglob("curves.png"))) == 1
    assert {path.name for path in here.iterdir()} == {"models", "pairs.jsonl", "posts.jsonl", "r2m-runs"}

    # From any folder: what it says to look with names the storage as a shell takes it.
    (look,) = re.findall(r"^look: \S+ ui --storage (.*)$", said[3], re.MULTILINE)
    assert f"{folder.name}: 0 metric points shipped" in typed(f"{R2M} sync {folder.name} --storage {look}", tmp_path)
    for name in ("models/smollm2-135m-reward", "r2m-runs"):
        shutil.rmtree(here / name)
