"""`r2m evaluate`: annotations read, and two files of responses judged by a real endpoint on this machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatJudge, serving


class PrefersTheLonger(ChatJudge):
    """Its verdict is the longer of the two texts between the judge prompt's marks."""

    @staticmethod
    def verdict(text: str) -> str:
        ours, theirs = (re.search(letter * 2 + "+", text) for letter in "QZ")
        assert ours is not None
        assert theirs is not None
        first, second = sorted((ours, theirs), key=re.Match.start)
        return "A" if len(first[0]) > len(second[0]) else "B"


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving(PrefersTheLonger) as url:
        yield url


def written(path: Path, rows: list[dict]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def test_two_files_of_responses_are_judged_once(r2m, endpoint: str, tmp_path: Path) -> None:
    """Ours wins on the three of four prompts where it is longer, in both orders; the second time nobody is asked."""
    lengths = [(9, 2), (9, 3), (9, 4), (3, 9)]
    ours = [{"instruction": f"{i}", "output": "Q" * a, "generator": "us"} for i, (a, _) in enumerate(lengths)]
    theirs = [
        {"instruction": f"{i}", "output": "Z" * b, "generator": "you"} for i, (_, b) in enumerate(lengths)
    ]
    command = (
        "evaluate", "outputs", written(tmp_path / "ours.json", ours),
        "--against", written(tmp_path / "theirs.json", theirs), "--judge-url", endpoint, "--judge-model", "m",
        "--verdicts", str(tmp_path / "verdicts.jsonl"), "--out", str(tmp_path / "annotations.json"),
    )  # fmt: skip
    code, out, err = r2m(*command)
    assert code == 0, err
    assert "win rate 75.0 %" in out
    assert PrefersTheLonger.asked == 8
    code, again, _ = r2m(*command)
    assert (code, again) == (0, out)
    assert PrefersTheLonger.asked == 8
    rows = json.loads((tmp_path / "annotations.json").read_text())
    assert [row["preference"] for row in rows] == [2, 2, 2, 1]
    code, out, _ = r2m("evaluate", "annotations", str(tmp_path / "annotations.json"))
    assert code == 0
    assert "us against you: 4 prompts" in out
    assert "win rate 75.00 ± 25.00 (standard error); 3 won, 1 lost, 0 drawn" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--template", "none"), "--template 'none': one of "),
        (("--against", "nowhere.json"), "nowhere.json"),
        (("--judge-url", "ftp://a"), "judge url = 'ftp://a'"),
        (("--max-cost", "1"), "judge max_cost = 1.0: needs price_in"),
    ],
)
def test_a_mistake_is_one_line(r2m, tmp_path: Path, more: tuple[str, str], said: str) -> None:
    file = written(tmp_path / "a.json", [{"instruction": "i", "output": "o"}])
    options = {"--against": file, "--judge-url": "http://127.0.0.1:1/v1", "--judge-model": "m"}
    options |= {"--verdicts": str(tmp_path / "v.jsonl")} | {more[0]: more[1]}
    code, _, err = r2m("evaluate", "outputs", file, *(word for pair in options.items() for word in pair))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
