"""The whole of `r2m paper` with tiny models, its runs on a Ray cluster of this machine."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from pages import CHROMIUM, drawn_plots

from r2m.config import Config
from r2m.paper.arms import ARMS
from r2m.runs.journal import read

R2M = str(Path(sys.executable).with_name("r2m"))


def test_the_paper_is_written_from_runs_and_a_second_call_runs_nothing(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    recipe, storage = tmp_path / "tiny.yaml", tmp_path / "storage"
    recipe.write_text(yaml.safe_dump(make_config("algorithm.rounds=4").model_dump(mode="json")))

    def paper() -> str:
        done = subprocess.run(
            [R2M, "paper", "--recipe", str(recipe), "--seeds", "1", "--storage", str(storage)],
            capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = paper()
    assert "19 claims" in said
    journals = sorted((storage / "runs").glob("paper-tiny-*/journal.jsonl"))
    assert len(journals) == len(ARMS)
    assert {read(path).arm for path in journals} == {label.replace("omega", "Ω") for label in ARMS}
    assert {read(path).status for path in journals} == {"finished"}
    with_checkpoints = {path.parent.name for path in (storage / "runs").glob("*/checkpoints")}
    assert with_checkpoints == {"paper-tiny-rloo-s0", "paper-tiny-r2m-s0"}

    folder = storage / "paper" / "paper-tiny"
    (r2m,) = [row for row in csv.DictReader((folder / "tables" / "table-2.csv").open()) if row["method"] == "R2M"]
    assessment = json.loads((storage / "runs" / "paper-tiny-r2m-s0" / "assessment.json").read_text())
    assert float(r2m["measured: gold mean"]) == assessment["means"]["gold"]
    (rate,) = [w for w in assessment["win_rates"] if (w["judge"], w["against"]) == ("gold", "sft")]
    assert float(r2m["measured: WR, % mean"]) == 100 * rate["rate"]
    measured = json.loads((folder / "cost.json").read_text())["measurements"]
    assert [m["arm"] for m in measured] == ["RLOO", "R2M", "R2M", "RLOO"]
    assert all(m["peak_mib"] > 1 and m["round_s"] > max(m["phases"].values()) > 0 for m in measured)
    assert [m["phases"]["time/head_s"] > 0 for m in measured] == [False, True, True, False]
    if CHROMIUM is not None:
        drawn, _ = drawn_plots(folder / "paper.html", tmp_path / "profile")
        assert drawn.keys() >= {"over-training", "conditions", "learning", "reward-kl", "cost"}
        assert all(drawn.values()), drawn

    written = {path: path.stat().st_mtime_ns for path in [*journals, folder / "cost.json"]}
    paper()
    assert {path: path.stat().st_mtime_ns for path in written} == written
