"""Random command lines, recipes, sweep files and model folders: a valid plan, or one line and exit code 2.

`python tests/settings_fuzz.py --minutes 10` looks for longer than tests/contract/test_settings_fuzz.py does.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from r2m.cli import main
from r2m.config import Config
from r2m.models.saving import save_model
from r2m.sweeps.schema import Sweep
from r2m.tasks.forum import forum_tokenizer

HANG_S = 100  # a plan of ten thousand points takes a tenth of it

RECIPE: dict[str, Any] = {
    "task": {"kind": "forum", "posts": 40, "held_out": 8},
    "policy": {"model": "policy"},
    "reward": {"model": "reward", "attention_width": 16, "num_heads": 2},
    "algorithm": {"queries": 4, "rounds": 4, "microbatch": 8, "sample_batch": 8, "max_response_tokens": 8},
    "run": {"device": "cpu", "eval_every": 2},
}
TEXT = RECIPE | {"task": {"kind": "text", "data": "rows.jsonl", "held_out": 2}}
SWEEP: dict[str, Any] = {
    "recipe": "recipe.yaml",
    "parameters": {
        "reward.alpha": {"uniform": [0, 1]},
        "algorithm.responses": {"int": [3, 4]},
        "algorithm.advantage": {"choice": ["rloo", "grpo"]},
    },
    "objectives": [{"metric": "eval/gold"}],
    "budget": {"trials": 3, "evaluations": 2},
    "baselines": {"RLOO": {"reward.feedback": False}},
    "confirm": [10],
}
BOMB = "{" + ", ".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(9)) + "}"
ODD_TEXT = [
    "", " ", "~", "~/x", ".", "..", "/", "a/", "[red]", "[/red]", "$x$", "2024-01-01", "1e-5", "12:30", "=", "<<",
    "&a [*a]", BOMB, "[" * 3000, "{a: 1, a: 2}", "!!python/name:os.system", "!!int ''", "x" * 300, "é\u202e\x07",
    "on", "0x" + "f" * 5000, "9" * 5000, "sqlite:///x?y", "http://[::1", "http://a:b@c", "recipe.yaml",
    "recipe.yaml/x",
]  # fmt: skip

# What an operating system takes as an argument.
argument = st.sampled_from(ODD_TEXT) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
scalar = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 40), st.floats(), st.floats(0, 1),
    st.sampled_from([10**30, 10**90, 1e-300, 1e300, 2**31, 2**63, 1e-5]), argument,
)  # fmt: skip
anything = st.recursive(scalar, lambda x: st.lists(x, max_size=4) | st.dictionaries(argument, x, max_size=3))


def fields(model: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys of a tree of settings, with their JSON schemas."""
    whole = model.model_json_schema()

    def walk(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        for option in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
            yield from walk(option, path)
        for name, inner in schema.get("properties", {}).items():
            yield (*path, name), inner
            yield from walk(inner, (*path, name))

    return walk(whole, prefix)


def likely(schema: Any) -> st.SearchStrategy[Any]:
    """Values that a setting may well take."""
    options = schema.get("anyOf", [schema])
    choices = [
        value for option in options for value in option.get("enum", [option["const"]] if "const" in option else [])
    ]
    if choices:
        return st.sampled_from(choices)
    kinds = {option.get("type") for option in options}
    if "boolean" in kinds:
        return st.booleans()
    if "integer" in kinds:
        return st.integers(0, 12)
    if "number" in kinds:
        return st.floats(0, 1)
    return st.sampled_from(["policy", "reward", "rows.jsonl", "text"])


def one_of_the(often: st.SearchStrategy[Any], less: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> Any:
    return st.integers(0, 9).flatmap(lambda i: rare if i == 9 else less if i > 6 else often)


@st.composite
def assignment(draw: st.DrawFn, known: list[tuple[tuple[str, ...], Any]]) -> tuple[tuple[str, ...], Any]:
    path, schema = draw(st.sampled_from(known))
    if draw(st.integers(0, 29)) == 0:
        path = (*path[:-1], draw(argument))
    return path, draw(one_of_the(likely(schema), scalar, anything))


@st.composite
def mutated(draw: st.DrawFn, tree: dict[str, Any], known: list[tuple[tuple[str, ...], Any]]) -> bytes:
    """The tree as YAML, with values changed, then perhaps its lines."""
    tree = copy.deepcopy(tree)
    for path, value in draw(st.lists(assignment(known), max_size=2)):
        node = tree
        for key in path[:-1]:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[path[-1]] = value
    lines = yaml.safe_dump(tree, allow_unicode=True).encode().splitlines(keepends=True)
    how = draw(st.integers(0, 19))
    at = draw(st.integers(0, len(lines) - 1))
    if how == 0:
        lines.insert(at, draw(st.sampled_from(lines)))
    elif how == 1:
        del lines[at]
    elif how == 2:
        lines[at] = draw(st.binary(max_size=20))
    return b"".join(lines)


CONFIG, SPACE = list(fields(Config)), list(fields(Sweep))
PARAMETERS = [((section, f"{p[0]}.{p[1]}"), s) for section in ("set", "parameters") for p, s in CONFIG if len(p) == 2]


@st.composite
def varied(draw: st.DrawFn, schema: Any) -> Any:
    """A range, most often one that the setting may have."""
    kind = draw(st.sampled_from(["uniform", "loguniform", "int", "choice"]))
    if draw(st.integers(0, 4)) == 0:
        return {kind: draw(st.lists(scalar, max_size=3))} | draw(st.sampled_from([{}, {"step": 2}, {"choice": [1]}]))
    if kind == "choice":
        return {kind: draw(st.lists(likely(schema), min_size=1, max_size=3))}
    return {
        kind: sorted(
            draw(st.lists(st.integers(1, 12) if kind == "int" else st.floats(1e-6, 2), min_size=2, max_size=2))
        )
    }


@st.composite
def sweep_text(draw: st.DrawFn) -> bytes:
    tree = copy.deepcopy(SWEEP)
    for (section, key), schema in draw(st.lists(st.sampled_from(PARAMETERS), max_size=2)):
        values = varied(schema) if section == "parameters" else one_of_the(likely(schema), scalar, anything)
        tree.setdefault(section, {})[key] = draw(values)
    if draw(st.integers(0, 4)) == 0:
        tree["baselines"] = draw(st.dictionaries(argument, st.just({"reward.feedback": False}), max_size=2))
    return draw(mutated(tree, SPACE))


@st.composite
def override(draw: st.DrawFn) -> str:
    path, value = draw(assignment(CONFIG))
    written = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return f"{'.'.join(path)}={written.removesuffix(chr(10)).removesuffix('...').rstrip()}".replace("\0", "")


def options(*names: str) -> st.SearchStrategy[list[str]]:
    value = one_of_the(st.integers(0, 4).map(str), argument, argument)
    pair = st.tuples(st.sampled_from(names), value).map(list)
    return st.integers(0, 3).flatmap(lambda i: st.just([]) if i else pair)


MODEL_VALUES = one_of_the(st.integers(-4, 64), scalar, anything)

trains = st.tuples(
    mutated(RECIPE, CONFIG) | mutated(TEXT, CONFIG),
    st.lists(override(), max_size=3).map(lambda sets: [word for s in sets for word in ("--set", s)]),
    options("--workers", "--storage", "--name", "--bogus"),
)
sweeps = st.tuples(sweep_text(), options("--workers", "--storage", "--name", "--tracking-uri"))
model_files = st.tuples(
    st.sampled_from(["policy", "reward"]),
    st.lists(st.tuples(st.sampled_from(sorted(LlamaConfig().to_dict())), MODEL_VALUES), max_size=2),
    st.sampled_from([None, 0, 7, 100, 5000]),
)


class Ground:
    """A folder with two tiny models and some rows, in which commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder, tokenizer = folder, forum_tokenizer()
        small = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_labels=1,
            num_attention_heads=2, max_position_embeddings=64, bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        torch.manual_seed(0)
        save_model(folder / "policy", LlamaForCausalLM(small), tokenizer)
        save_model(folder / "reward", LlamaForSequenceClassification(small), tokenizer)
        (folder / "rows.jsonl").write_text('{"prompt": "my mom sold my tv ."}\n' * 8)
        self.write("recipe.yaml", yaml.safe_dump(RECIPE).encode())
        self.kept = {name: (folder / name / "config.json").read_text() for name in ("policy", "reward")}

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def check(self, *words: str) -> bool:
        """Whether it is a valid plan; else it is refused in one line. Neither leaves anything behind."""
        before, argv, here = sorted(self.folder.rglob("*")), sys.argv, os.getcwd()
        said, refused = io.StringIO(), io.StringIO()
        sys.argv = ["r2m", *words]
        os.chdir(self.folder)
        alarm = signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(HANG_S)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(refused):
                main()
        except SystemExit as ended:
            code = ended.code
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, alarm)
            os.chdir(here)
            sys.argv = argv
        error = refused.getvalue()
        assert sorted(self.folder.rglob("*")) == before
        if code == 0:
            assert error == ""
            assert "Plan of " in said.getvalue()
            return True
        assert (code, said.getvalue()) == (2, "")
        assert error.startswith("error: ")
        assert len(error) > len("error: \n")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert error[:-1].isprintable()
        return False

    def train(self, case: tuple[bytes, list[str], list[str]]) -> None:
        recipe, sets, more = case
        self.write("mutant.yaml", recipe)
        self.check("train", "mutant.yaml", "--dry-run", *sets, *more)

    def sweep(self, case: tuple[bytes, list[str]]) -> None:
        text, more = case
        self.write("mutant.yaml", text)
        self.check("sweep", "mutant.yaml", "--dry-run", *more)

    def model(self, case: tuple[str, list[tuple[str, Any]], int | None]) -> None:
        """A model folder with values of its config.json changed, or its weights cut short."""
        name, changes, length = case
        shutil.copytree(self.folder / name, self.folder / "mutant")
        try:
            tree = json.loads(self.kept[name]) | dict(changes)
            (self.folder / "mutant" / "config.json").write_text(json.dumps(tree))
            if length is not None:
                os.truncate(self.folder / "mutant" / "model.safetensors", length)
            planned = self.check("train", "recipe.yaml", "--dry-run", "--set", f"{name}.model=mutant")
            assert not planned or length is None
        finally:
            shutil.rmtree(self.folder / "mutant")


def _hangs(*_: object) -> None:
    raise AssertionError(f"no plan and no refusal in {HANG_S} s")


CASES = {"train": trains, "sweep": sweeps, "model": model_files}


def search(ground: Ground, what: str, examples: int, repeatable: bool = True) -> None:
    """Look for a command that is neither refused nor planned for. Raises what it finds, made as small as can be."""
    checks = settings(
        max_examples=examples, deadline=None, database=None, derandomize=repeatable,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    checks(given(CASES[what])(getattr(ground, what)))()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    end = time.monotonic() + 60 * parser.parse_args().minutes
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as place:
        ground, done = Ground(Path(place)), 0
        while time.monotonic() < end:
            for kind in CASES:
                search(ground, kind, 100, repeatable=False)
                done += 100
                print(f"{done} commands", flush=True)
