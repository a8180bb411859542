"""`r2m paper` from its command line: mistakes are one line and exit code 2, and nothing is made."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from made_assessments import assessment

from r2m.cli import main
from r2m.config import Config
from r2m.errors import UserError
from r2m.paper.arms import ARMS
from r2m.paper.run import Asked, collect, open_sweeps
from r2m.runs.journal import Journal
from r2m.sweeps.spec import config_of
from r2m.sweeps.sweep import open_sweep

MakeConfig = Callable[..., Config]


def asked(storage: Path, recipe: str, seeds: int, *settings: str, name: str = "paper-tiny") -> Asked:
    return Asked(recipe, seeds, str(storage), name, settings)


@pytest.fixture
def tiny(make_config: MakeConfig, tmp_path: Path) -> str:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(make_config().model_dump(mode="json")))
    return str(recipe)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "nonsense"], "error: recipe = 'nonsense': not one of "),
        (["--set", "reward.alphas=1"], "error: reward.alphas: unknown key"),
        (["--set", "run.seed=3"], "error: set.run.seed: the sweep sets it"),
        (["--address", "ray://localhost:1"], "error: --address 'ray://localhost:1'"),
        (["--name", "a/b"], "error: --name 'a/b'"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "storage"
    monkeypatch.setattr(sys, "argv", ["r2m", "paper", "--seeds", "1", "--storage", str(storage), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith(said)
    assert "\n" not in printed
    assert not storage.exists()


def test_more_seeds_make_a_sweep_of_those_that_are_missing(tiny: str, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    (first,) = open_sweeps(asked(storage, tiny, 2))
    assert (first.name, first.sweep.seeds) == ("paper-tiny", [0, 1])
    assert [o.name for o in open_sweeps(asked(storage, tiny, 1))] == ["paper-tiny"]
    _, second = open_sweeps(asked(storage, tiny, 4))
    assert (second.name, second.sweep.seeds) == ("paper-tiny-from2", [2, 3])
    assert [o.name for o in open_sweeps(asked(storage, tiny, 3))] == ["paper-tiny", "paper-tiny-from2"]
    assert open_sweep(str(storage), "paper-tiny").experiment == "r2m/sweeps/paper-tiny"


def test_runs_of_other_settings_are_not_mixed_in(tiny: str, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    open_sweeps(asked(storage, tiny, 1))
    with pytest.raises(UserError, match=r"^--name 'paper-tiny': its runs have other settings .*\(set\)"):
        open_sweeps(asked(storage, tiny, 1, "algorithm.beta=0.5"))
    assert sorted(path.name for path in (storage / "sweeps").iterdir()) == ["paper-tiny"]


def test_runs_are_found_by_their_tags_whatever_their_names(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = tmp_path / "storage"
    what = asked(storage, tiny, 2)
    (opened,) = open_sweeps(what)
    for i, (arm, seed, status) in enumerate((("RLOO", 1, "finished"), ("R2M, no BT", 0, "failed"))):
        folder = storage / "runs" / f"paper-tiny-{i}"
        config = config_of(opened.sweep, ARMS[arm], seed, *opened.extra)
        with Journal(folder / "journal.jsonl") as journal:
            journal.start(
                run_id=folder.name, task="forum", policy="p", config=config.model_dump(mode="json"), versions={},
                git={}, config_hash="c", data_hash="d", datasets=[], parent="paper-tiny", tags={"r2m.trial": arm},
            )  # fmt: skip
            journal.event(status)
        (folder / "checkpoints").mkdir()
    known = assessment(means={"gold": 0.25})
    monkeypatch.setattr("r2m.paper.run.assess_all", lambda _, names, **__: dict.fromkeys(names, known))
    monkeypatch.setattr("r2m.paper.run._cost", lambda *_: None)
    r = collect(what, [opened])
    assert {arm: r.run_ids(arm) for arm in r.arms} == {"RLOO": ("paper-tiny-0",)}
    assert r.mean_of("RLOO", "gold") == {1: 0.25}
    assert r.missing["paper-tiny-1"] == "failed"
    assert r.missing["RLOO, seed 0"] == "not run"
    assert len(r.missing) == 1 + 2 * len(ARMS) - 2
    assert (storage / "runs" / "paper-tiny-0" / "checkpoints").is_dir()  # of RLOO they are drawn
