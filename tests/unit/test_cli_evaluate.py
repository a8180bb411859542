"""`r2m evaluate`: annotations read, and two files of responses judged by a real endpoint on this machine."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class LikeAReasoningModel(PrefersTheLonger):
    """Takes no temperature and no max_tokens, as GPT-5 and the o-series do."""

    @staticmethod
    def refusal(body: dict[str, Any]) -> str | None:
        if "max_tokens" in body:
            return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return "Unsupported value: 'temperature' does not support 0." if "temperature" in body else None


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
    theirs = [{"instruction": f"{i}", "output": "Z" * b, "generator": "you"} for i, (_, b) in enumerate(lengths)]
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


def test_a_reasoning_model_is_asked_as_it_wants(r2m, tmp_path: Path) -> None:
    instructions = [f"{i}" for i in range(5)]
    ours, theirs = ([{"instruction": i, "output": text} for i in instructions] for text in ("QQ", "ZZZ"))
    verdicts = tmp_path / "verdicts.jsonl"
    with serving(LikeAReasoningModel) as url:
        command = (
            "evaluate", "outputs", written(tmp_path / "ours.json", ours),
            "--against", written(tmp_path / "theirs.json", theirs),
            "--verdicts", str(verdicts),
        )  # fmt: skip
        ask = (*command, "--judge-url", url, "--judge-model", "gpt-5")
        code, out, err = r2m(*ask)
        assert (code, out) == (2, "")
        assert err == (
            f"error: judge url = '{url}', model 'gpt-5': no answer to the first 8 questions (status 400: Unsupported "
            "parameter: 'max_tokens'. Use 'max_completion_tokens' instead.); --judge-body changes the request\n"
        )
        assert 8 <= LikeAReasoningModel.asked <= 8 + 3  # those under way
        assert not verdicts.exists()
        code, _, err = r2m(*ask, "--judge-body", "max_completion_tokens=4096")
        assert code == 2
        assert "Unsupported value: 'temperature' does not support 0." in err
        body = ("temperature=null", "max_tokens=null", "max_completion_tokens=4096", 'reasoning_effort="low"')
        code, out, err = r2m(*ask, *(word for field in body for word in ("--judge-body", field)))
        assert code == 0, err
        assert "win rate 0.0 %" in out
        assert '(max_completion_tokens 4096, reasoning_effort "low")' in " ".join(out.split())
    code, again, err = r2m(*command)  # the verdicts on file, nobody asked
    assert (code, again, err) == (0, out, "")


def test_a_few_refusals_are_said_in_the_endpoints_words(r2m, tmp_path: Path) -> None:
    ours = written(tmp_path / "ours.json", [{"instruction": "i", "output": "Q"}])
    theirs = written(
        tmp_path / "theirs.json", [{"instruction": "i", "output": "Z"}, {"instruction": "j", "output": ""}]
    )
    with serving(LikeAReasoningModel) as url:
        code, out, err = r2m(
            "evaluate", "outputs", ours, "--against", theirs, "--judge-url", url, "--judge-model", "m",
            "--verdicts", str(tmp_path / "v.jsonl"), "--out", str(tmp_path / "annotations.json"),
        )  # fmt: skip
    assert code == 2
    assert "1 instructions are in both files, of 1 and 2" in out
    said = " ".join(err.split())
    assert "2 without an answer (status 400: Unsupported parameter: 'max_tokens'." in said
    assert said.count("Unsupported") == 1
    assert "no usable verdict on any of 1 prompts" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.json", "theirs.json"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--template", "none"), "--template 'none': one of "),
        (("--against", "nowhere.json"), "nowhere.json"),
        (("--judge-url", "ftp://a"), "judge url = 'ftp://a'"),
        (("--judge-url", "http://127.0.0.1:1/v1/chat/completions"), "without /chat/completions"),
        (("--max-cost", "1"), "judge max_cost = 1.0: needs price_in"),
        (("--max-cost", "inf"), "judge max_cost = inf: a finite number is needed"),
        (("--judge-body", "effort=low"), "'low' is not JSON; text is quoted: effort='\"low\"'"),
        (("--judge-body", "model=1"), "--judge-body model: all but messages, model, stream, n may be set"),
        (("--key-env", "R2M_NO_SUCH_KEY"), "judge key_env = 'R2M_NO_SUCH_KEY': this environment variable"),
        (("--judge-model", ""), "judge model = '': a name is needed"),
        (("--verdicts", "."), "verdicts = '.': not a file"),
        (("--verdicts", "{file}"), "holds something else than verdicts"),
        (("--out", "{file}"), "a.json': this command reads that file"),
        (("--out", "nowhere/a.json"), "--out 'nowhere/a.json': no such folder"),
        (("--out", "."), "--out '.': a folder; a file's name is needed"),
        (("--out", "/proc/a.json"), "--out '/proc/a.json': cannot be written ("),
        *((("--" + option, "x" * 300), "x") for option in ("out", "verdicts", "against")),
    ],
)
def test_a_mistake_is_one_line(r2m, tmp_path: Path, more: tuple[str, str], said: str) -> None:
    file = written(tmp_path / "a.json", [{"instruction": "i", "output": "o"}])
    options = {"--against": file, "--judge-url": "http://127.0.0.1:1/v1", "--judge-model": "m"}
    options |= {"--verdicts": str(tmp_path / "v.jsonl")} | {more[0]: more[1].format(file=file)}
    code, _, err = r2m("evaluate", "outputs", file, *(word for pair in options.items() for word in pair))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--judge-url, --judge-model and --verdicts are needed, or --verdicts of earlier calls"),
        (("--judge-url", "http://h/v1"), "--judge-url: --judge-model and --verdicts are needed with it"),
        (("--judge-max-tokens", "9"), "--judge-max-tokens: --judge-url is needed with it"),
        (("--judge-body", "a=1"), "--judge-body: --judge-url is needed with it"),
        (("--key-env", "KEY"), "--key-env: --judge-url is needed with it"),
        (("--verdicts", "none.jsonl"), "verdicts = 'none.jsonl': cannot be read"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    r2m, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    file = written(tmp_path / "a.json", [{"instruction": "i", "output": "o"}])
    code, _, err = r2m("evaluate", "outputs", file, "--against", file, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"instruction": "i", "output": null}]', f"[{'9' * 5000}]", ""])
def test_outputs_that_are_none_are_one_line(r2m, tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "a.json", [{"instruction": "i", "output": "o"}])
    (tmp_path / "b.json").write_text(text)
    code, _, err = r2m("evaluate", "outputs", file, "--against", str(tmp_path / "b.json"), "--verdicts", "v.jsonl")
    assert (code, err.count("\n")) == (2, 1)
    assert "b.json'" in err


class TestAnnotations:
    """40 instructions of which the later ones are harder for the new model; gamed rows that know their difficulty."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        self.rows = [
            {"instruction": f"ask {i}", "output_1": "x" * (5 + i % 7), "generator_1": "base",
             "output_2": "y" * (4 + i % 5), "generator_2": "new", "preference": 1.9 - 0.02 * i}
            for i in range(40)
        ]  # fmt: skip
        written(tmp_path / "annotations.json", self.rows)
        base = [{"instruction": f"ask {i}", "output": "x", "generator": "base"} for i in range(40)]
        written(tmp_path / "base.json", base)
        gamed = ["model,preference,index,std_delta_len,instruction_difficulty"]
        for model, delta in (("base_concise", 1.0), ("base_verbose", -1.0)):
            gamed += [f"{model},{0.5 - 0.2 * delta},{i},{delta},{(20 - i) / 10}" for i in range(40)]
        (tmp_path / "gamed.csv").write_text("\n".join(gamed) + "\n")
        (tmp_path / "weights.csv").write_text(
            ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\n"
            "base,0,0,0\nnew,-1.5,0,0.5\nother,1,1,1\n"
        )
        return tmp_path

    def read(self, r2m, files: Path, *options: str) -> tuple[int, str, str]:
        words = (f"{files}/{word}" if word.endswith((".json", ".csv")) else word for word in options)
        return r2m("evaluate", "annotations", *words)

    def test_rows_are_matched_by_their_instruction(self, r2m, files: Path) -> None:
        options = ("annotations.json", "--gamed", "gamed.csv", "--instructions", "base.json")
        code, out, err = self.read(r2m, files, *options)
        assert code == 0, err
        assert "new against base: 40 prompts" in out
        assert "length-controlled win rate" in out
        assert "numbered by their order in" in out  # base.json has no index
        written(files / "annotations.json", self.rows[::-1])
        assert self.read(r2m, files, *options)[1] == out
        written(files / "annotations.json", self.rows[1:])
        code, short, err = self.read(r2m, files, *options)
        rates = [float(re.search(r"controlled win rate ([\d.]+)", text)[1]) for text in (out, short)]
        assert rates[0] == pytest.approx(rates[1], abs=1.5)

    def test_published_weights_give_the_rate(self, r2m, files: Path) -> None:
        """Without a weight of the difficulty it is sigmoid(0.5) for every instruction."""
        code, out, err = self.read(
            r2m, files, "annotations.json", "--weights", "weights.csv", "--gamed", "gamed.csv",
            "--instructions", "base.json",
        )  # fmt: skip
        assert code == 0, err
        assert f"length-controlled win rate {100 / (1 + math.exp(-0.5)):.2f} (no standard error: " in out
        assert "by the weights in" in " ".join(out.split())

    @pytest.mark.parametrize("n", [1, 4])
    def test_few_rows_have_no_error_that_says_nothing(self, r2m, files: Path, n: int) -> None:
        """One row has no spread, and four that are all alike have none either."""
        written(files / "annotations.json", [row | {"preference": 2} for row in self.rows[:n]])
        code, out, err = self.read(r2m, files, "annotations.json")
        assert code == 0, err
        assert "win rate 100.00 (no standard error: one row, or all alike)" in out
        assert "nan" not in out
        code, out, err = self.read(
            r2m, files, "annotations.json", "--gamed", "gamed.csv", "--instructions", "base.json"
        )
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"annotations of 'new': {n} with a preference; the length-controlled rate needs 5 or more" in err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--gamed", "gamed.csv"), "the rows have no index, and a position says nothing; give"),
            (("--weights", "weights.csv"), "--gamed is needed with it"),
            (("--gamed", "gamed.csv", "--instructions", "short.json"), "39 rows, and 40 instructions in"),
            (("--instructions", "short.json"), "row 0: the instruction 'ask 0' is not in the evaluation set"),
            (("--instructions", "davinci.json"), "generator_1 = 'base'; the outputs of the evaluation set"),
            (("--gamed", "davinci.csv", "--instructions", "base.json"), "the gamed rows are those of 'davinci'"),
            (
                ("--gamed", "gamed.csv", "--instructions", "base.json", "--weights", "others.csv"),
                "none of 'new'; it has base, other",
            ),
            (
                ("--gamed", "gamed.csv", "--instructions", "base.json", "--weights", "swapped.csv"),
                "against another baseline than 'base'",
            ),
            (("--gamed", "none.csv", "--instructions", "base.json"), "none.csv': no such file"),
            (("--instructions", "nowhere"), "outputs = 'nowhere': no such file"),
            (("--gamed", "base.json", "--instructions", "base.json"), "gamed = "),
        ],
    )
    def test_a_mistake_is_one_line(self, r2m, files: Path, options: tuple[str, ...], said: str) -> None:
        base = json.loads((files / "base.json").read_text())
        written(files / "short.json", base[1:])
        written(files / "davinci.json", [row | {"generator": "davinci"} for row in base])
        gamed = (files / "gamed.csv").read_text()
        (files / "davinci.csv").write_text(gamed.replace("base_", "davinci_"))
        heading, *weights = (files / "weights.csv").read_text().splitlines()
        (files / "others.csv").write_text("\n".join((heading, weights[0], weights[2])))
        (files / "swapped.csv").write_text(
            "\n".join((heading, weights[0].replace("base", "gpt"), weights[1], weights[2].replace("other", "base")))
        )
        if "short.json" in options and "--gamed" in options:
            written(files / "annotations.json", self.rows[1:])
        code, out, err = self.read(r2m, files, "annotations.json", *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err

    @pytest.mark.parametrize("value", [f"1{'0' * 400}", "[" * 100_000, "1e400", "5", "true"])
    def test_a_preference_that_is_none_is_one_line(self, r2m, files: Path, value: str) -> None:
        row = json.dumps(self.rows[0] | {"preference": None}).replace("null", value)
        (files / "annotations.json").write_text(f"[{row}]")
        code, out, err = self.read(r2m, files, "annotations.json")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "annotations.json'" in err
        assert len(err) < 400


def test_without_the_extra_nothing_is_asked_and_what_is_on_file_is_read(
    r2m, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    file = written(tmp_path / "a.json", [{"instruction": "i", "output": "o"}])
    command = ("evaluate", "outputs", file, "--against", file, "--verdicts", "none.jsonl")
    code, _, err = r2m(*command, "--judge-url", "http://h/v1", "--judge-model", "m")
    assert (code, err) == (2, "error: --judge-url: asking needs the package openai: pip install 'r2m[judge]'\n")
    assert "verdicts = 'none.jsonl': cannot be read" in r2m(*command)[2]


def test_help_loads_no_client_of_endpoints() -> None:
    code = "import sys; from r2m.cli import main\ntry: main()\nfinally: print('openai' in sys.modules)"
    for command in (["evaluate", "outputs", "--help"], ["evaluate", "RUN", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
        assert "--judge-url" in done.stdout
        assert done.stdout.endswith("False\n")
