"""`r2m evaluate RUN|MODEL`: finished runs of tiny models, and an endpoint on this machine."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat_server import ChatJudge, serving

from r2m.config import Config
from r2m.evaluation.assess import assess
from r2m.runs.folder import ASSESSMENT

Command = Callable[..., tuple[int, str, str]]


class AlwaysA(ChatJudge):
    """Prefers whatever comes first."""

    @staticmethod
    def verdict(text: str) -> str:
        return "Preferred: A"


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving(AlwaysA) as url:
        yield url


def flat(text: str) -> str:
    """Without the terminal's line breaks."""
    return " ".join(text.split())


def test_help_says_that_runs_and_models_are_taken(r2m: Command) -> None:
    code, out, _ = r2m("evaluate", "--help")
    assert code == 0
    assert "`r2m evaluate RUN` assesses a finished run, `r2m evaluate MODEL --recipe RECIPE`" in flat(out)
    assert "RUN|MODEL" in out
    assert "annotations" in out


def test_a_run(r2m: Command, storage: str) -> None:
    code, out, err = r2m("evaluate", "r2m", "--storage", storage)
    assert code == 0, err
    tree = json.loads((Path(storage) / "runs" / "r2m" / ASSESSMENT).read_text())
    assert "r2m, R2M, seed 3: 12 held-out prompts" in out
    assert f"gold {tree['means']['gold']:.3g}, vanilla reward {tree['means']['vanilla']:.3g}" in out
    (by_gold,) = [w for w in tree["win_rates"] if (w["judge"], w["against"]) == ("gold", "sft")]
    assert f"{100 * by_gold['rate']:.1f} %" in out
    assert f"assessment: {Path(storage) / 'runs' / 'r2m' / ASSESSMENT}" in out
    # Options before the name, and what is chosen of the same assessment.
    code, chosen, _ = r2m("evaluate", "--storage", storage, "--judge", "vanilla", "--against", "reference", "r2m")
    assert code == 0
    assert "reference" in chosen
    assert "sft" not in chosen


def test_two_runs_are_paired_by_prompt(r2m: Command, storage: str) -> None:
    code, out, err = r2m("evaluate", "r2m", "--storage", storage, "--against", "rloo", "--prompts", "4")
    assert code == 0, err
    ours, theirs = (assess(storage, name, prompts=4).rows for name in ("r2m", "rloo"))
    mean = sum(a.gold - b.gold for a, b in zip(ours, theirs, strict=True)) / 4
    assert f"gold, less that of rloo: {mean:.3g}".replace("-", "−") in out
    assert "4 prompts" in out
    wins = [(a.gold > b.gold) + 0.5 * (a.gold == b.gold) for a, b in zip(ours, theirs, strict=True)]
    assert f"{100 * sum(wins) / 4:.1f} %" in out


def test_a_model_writes_what_outputs_reads(
    r2m: Command, config: Config, forum_models: tuple[str, str], tmp_path: Path
) -> None:
    """Nothing but --out is written; against its own file it ties on every prompt."""
    recipe, file = tmp_path / "tiny.yaml", tmp_path / "outputs.json"
    recipe.write_text(json.dumps(config.model_dump(mode="json")))
    command = (
        "evaluate", forum_models[0], "--recipe", str(recipe), "--storage", str(tmp_path / "storage"),
        "--prompts", "4",
    )  # fmt: skip
    code, out, err = r2m(*command, "--max-tokens", "3", "--out", str(file))
    assert code == 0, err
    assert "a model: 4 held-out prompts" in out
    assert not (tmp_path / "storage").exists()
    rows = json.loads(file.read_text())
    assert {row["generator"] for row in rows} == {forum_models[0]}
    assert len({row["instruction"] for row in rows}) == 4
    code, out, err = r2m(*command, "--max-tokens", "3", "--against", str(file), "--judge", "gold")
    assert code == 0, err
    assert "50.0 %" in out


def test_an_endpoint_judges_both_orders_and_its_verdicts_are_enough_later(
    r2m: Command, storage: str, endpoint: str, tmp_path: Path
) -> None:
    verdicts = tmp_path / "verdicts.jsonl"
    command = (
        "evaluate", "rloo", "--storage", storage, "--prompts", "4", "--against", "reference", "--template", "tldr",
        "--verdicts", str(verdicts),
    )  # fmt: skip
    asked_with = ("--judge-max-tokens", "99", "--judge-body", "temperature=null")
    code, out, err = r2m(*command, "--judge-url", endpoint, "--judge-model", "m", *asked_with)
    assert code == 0, err
    assert f"judge m at {endpoint} (max_tokens 99), both orders" in flat(out)
    assert AlwaysA.asked == 8  # 4 prompts, both orders
    assert "against reference, asked as tldr" in out
    assert "win rate 50.0 %" in out
    assert "4 ties (0 equal responses, 4 where the orders contradict)" in flat(out)
    assert "8 verdicts asked for, 0 from the file" in flat(err)
    code, again, err = r2m(*command)
    assert code == 0, err
    assert AlwaysA.asked == 8
    verdict = "against reference, asked as tldr"
    assert again[again.index(verdict) :] == out[out.index(verdict) :]
    # A judge whose words were others knows nothing.
    code, _, err = r2m(*command, "--template", "general")
    assert code == 2
    assert "no usable verdict on any of 4 prompts" in flat(err)
    code, _, err = r2m(*command, "--judge-model", "another")
    assert code == 2
    assert "name one judge by --judge-model; it has ['m at http" in flat(err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "RUN = 'nowhere': not in "),
        (("r2m", "--recipe", "forum"), "--recipe 'forum': 'r2m' is a run, which has its own"),
        (("nowhere", "--recipe", "forum"), "MODEL = 'nowhere': a Hugging Face folder or hub id is needed"),
        (("r2m", "--prompts", "99"), "--prompts 99: 1 to 12, "),
        (("r2m", "--max-tokens", "0"), "--max-tokens 0: at least 1 is allowed"),
        (("r2m", "--judge", "nobody"), "--judge = 'nobody': a Hugging Face folder or hub id is needed"),
        (("r2m", "--against", "nobody"), "--against 'nobody': sft, reference, a run in "),
        (("r2m", "--pairs", "nowhere.jsonl"), "--pairs = 'nowhere.jsonl': no such file"),
        (("r2m", "--judge-url", "http://127.0.0.1:1/v1"), "--judge-url: --judge-model and --verdicts are needed"),
        (("r2m", "--judge-body", "a=1"), "--judge-body: --judge-url is needed with it"),
        (("r2m", "--out", "."), "--out '.': a folder; a file's name is needed"),
        (("r2m", "--verdicts", "v.jsonl"), "--verdicts: --against is needed with it"),
        (("r2m", "--verdicts", "v.jsonl", "--against", "sft"), "verdicts = 'v.jsonl': cannot be read"),
        (("r2m", "--template", "poem"), "--template 'poem': one of tldr, general"),
        (("r2m", "--out", "/nowhere/a.json"), "--out '/nowhere/a.json': no such folder"),
    ],
)
def test_a_mistake_is_one_line(r2m: Command, storage: str, arguments: tuple[str, ...], said: str) -> None:
    before = sorted(Path(storage).rglob("*"))
    code, _, err = r2m("evaluate", *arguments, "--storage", storage)
    assert code == 2
    assert said in err
    assert [line for line in err.splitlines() if not line.startswith(("Loading", "\r"))][-1].startswith("error: ")
    assert sorted(Path(storage).rglob("*")) == before


def test_gold_is_refused_where_there_is_none(
    r2m: Command, text_recipe, forum_models: tuple[str, str], tmp_path: Path
) -> None:
    recipe = text_recipe([{"prompt": f"i feel {w} . tl;dr:"} for w in ("sad", "tired", "numb", "angry")])
    command = ("evaluate", forum_models[0], "--recipe", recipe, "--storage", str(tmp_path / "s"))
    code, _, err = r2m(*command, "--judge", "gold")
    assert code == 2
    assert "error: --judge 'gold': text has no gold program; vanilla or a model is allowed" in err
    code, _, err = r2m(*command, "--against", "reference")
    assert code == 2
    assert "--against 'reference'" in err


def test_paths_are_the_users(r2m: Command, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~`, in every option."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    (tmp_path / "there.json").write_text("[]")
    for words, named in (
        (["r2m", "--against", "~/there.json"], f"outputs = '{tmp_path}/there.json'"),
        (["r2m", "--pairs", "~/gone.jsonl"], f"--pairs = '{gone}.jsonl': no such file"),
        (["r2m", "--judge", "~/gone"], f"--judge = '{gone}': "),
        (["~/gone", "--recipe", "forum"], f"MODEL = '{gone}': "),
        (["r2m", "--out", "~/gone/x.json"], f"--out '{gone}/x.json': no such folder"),
        (["annotations", "~/gone.json"], f"'{gone}.json': "),
        (["outputs", "~/gone.json", "--against", "x.json"], f"'{gone}.json': "),
    ):
        place = [] if words[0] in ("annotations", "outputs") else ["--storage", storage]
        code, _, err = r2m("evaluate", *words, *place)
        assert code == 2, err
        assert named in err
