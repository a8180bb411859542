"""A pipeline's file, checked whole: each mistake is one line that names the field, before anything is written."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2m.errors import UserError
from r2m.pipelines.kinds import STEP_KINDS
from r2m.pipelines.references import resolved
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.spec import check_room_for, graph, load_pipeline, pending, step_settings
from r2m.pipelines.work import Where
from tests.conftest import Command

Load = Callable[..., Pipeline]

WHOLE = """
parameters: {seeds: [0, 1], share: 0.25, label: R2M, options: {reward.alpha: 0.4}}
steps:
  sft: {use: sft, recipe: forum}
  reward: {use: reward-model, recipe: forum, set: {task.artefact: "${share}"}, policy: "${sft.model}"}
  arms:
    use: train
    recipe: forum
    set: {policy.model: "${sft.model}", reward.model: "${reward.model}"}
    arms: {RLOO: {reward.feedback: false}, R2M: "${options}"}
    seeds: "${seeds}"
  compared: {use: compare, runs: "${arms.runs}", baseline: "${label}"}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *given: str, name: str = "night.yaml") -> Pipeline:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return load_pipeline(tmp_path / name, given)

    return load


def changed(**steps: Any) -> str:
    tree = yaml.safe_load(WHOLE)
    for name, own in steps.items():
        tree["steps"][name] = tree["steps"].get(name, {}) | own
    return yaml.safe_dump(tree, sort_keys=False)


def test_a_whole_file(load: Load) -> None:
    pipeline = load(WHOLE)
    assert pipeline.name == "night"
    assert graph(pipeline) == {"sft": (), "reward": ("sft",), "arms": ("sft", "reward"), "compared": ("arms",)}


def test_a_value_that_is_one_reference_has_its_type(load: Load) -> None:
    pipeline = load(WHOLE, "seeds=[7]", "share=0.5", "label=RLOO")
    outputs = {name: pending(STEP_KINDS[step.use]) for name, step in pipeline.steps.items()}
    assert step_settings(pipeline, "arms", outputs).seeds == [7]
    assert step_settings(pipeline, "arms", outputs).arms["R2M"] == {"reward.alpha": 0.4}
    assert step_settings(pipeline, "reward", outputs).set == {"task.artefact": 0.5}
    assert step_settings(pipeline, "compared", outputs | {"arms": {"runs": ["a", "b"]}}).runs == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${n}", 3), (" ${n}", " 3"), ("a${n}b${ n }", "a3b3"), ("$$", "$"), ("$${n}", "${n}"), ("$$${n}", "$3"),
        ("${l}", [1, 2]), ("${s.out}", {"x": 1}), (["${n}", {"k": "${n}"}], [3, {"k": 3}]), (3, 3), (None, None),
    ],
)  # fmt: skip
def test_what_references_become(text: Any, value: Any) -> None:
    values = {("n", None): 3, ("l", None): [1, 2], ("s", "out"): {"x": 1}}
    assert resolved(text, "at", lambda name, output: values[name, output]) == value


def test_a_list_is_no_text() -> None:
    with pytest.raises(UserError, match=r"at\.0 = 'x\$\{l\}': \$\{l\} is a list or a mapping"):
        resolved(["x${l}"], "at", lambda name, output: [1])


WRONG = [
    (changed(arms={"seeds": "${seed}"}), "steps.arms.seeds: ${seed}: no such parameter; there are: seeds, share,"),
    (changed(arms={"seeds": "${sft}"}), "steps.arms.seeds: ${sft} is a step; of its outputs, sft.model are allowed"),
    (changed(reward={"policy": "${sfd.model}"}), "steps.reward.policy: ${sfd.model}: no such step; there are: sft,"),
    (changed(reward={"policy": "${sft.runs}"}), "${sft.runs}: sft uses sft, whose outputs are model"),
    (changed(reward={"policy": "${sft.model"}), "steps.reward.policy = '${sft.model': ${parameter} and"),
    (changed(reward={"policy": "$sft"}), "steps.reward.policy = '$sft': ${parameter} and"),
    (changed(reward={"policy": "${a.b.c}"}), "steps.reward.policy = '${a.b.c}': ${parameter} and"),
    (changed(reward={"policy": "${}"}), "steps.reward.policy = '${}': ${parameter} and"),
    (changed(sft={"needs": ["arms"]}), "steps: sft -> arms -> sft: steps need each other in a circle"),
    (changed(sft={"needs": ["sft"]}), "steps: sft -> sft: steps need each other in a circle"),
    (changed(sft={"needs": ["x"]}), "steps.sft.needs = 'x': reward, arms, compared are allowed"),
    (changed(sft={"needs": "reward"}), "steps.sft.needs = 'reward'"),
    (changed(sft={"use": "sftt"}), "steps.sft.use = 'sftt': sft, reward-model, train,"),
    (changed(sft={"use": None}), "steps.sft.use = None"),
    (changed(sft={"recipee": 1}), "steps.sft: recipee"),
    (changed(sft={"set": {"task.artefac": 1}}), "steps.sft: "),
    (changed(sft={"retries": -1}), "steps.sft.retries = -1"),
    (changed(arms={"evaluations": 0}), "steps.arms: evaluations = 0"),
    (changed(arms={"evaluations": "${seeds}"}), "steps.arms: evaluations = [0, 1]: input should be"),
    (changed(compared={"metric": "gold"}), "steps.compared: metric = 'gold'"),
    (changed(arms={"recipe": "none"}), "steps.arms: recipe = 'none'"),
    (WHOLE.replace("seeds: [0, 1],", "seeds: [0, 1], more: 1,"), "parameters.more: no step uses it"),
    (WHOLE.replace("seeds: [0, 1],", "seeds: [0, 1], arms: 1,"), "steps.arms: a parameter has this name"),
    (WHOLE.replace("seeds: [0, 1],", "seeds: [0, 1], a-b: 1,"), "parameters.a-b: a name of letters"),
    (WHOLE.replace("  sft:", "  1sft:"), "steps.1sft: a name of letters"),
    (WHOLE.replace("  sft:", f"  {'s' * 31}:"), f"steps.{'s' * 31}: a name of letters, digits and '_' is allowed"),
    (WHOLE + "step: 1", "step: unknown key; allowed: name, parameters,"),
    ("name: a/b" + WHOLE, "name = 'a/b': letters, digits"),
    ("name: 3" + WHOLE, "name = 3"),
    (f"name: {'n' * 51}" + WHOLE, "name = 'nnn"),
    ("schedule: {crn: 1}" + WHOLE, "schedule.crn: unknown key; allowed: cron,"),
    ("schedule: {time_zone: Mars}" + WHOLE, "schedule.time_zone = 'Mars': a time zone's name is allowed"),
    ("schedule: {cron: 0 3 * *}" + WHOLE, "schedule.cron = '0 3 * *': minute hour day month weekday are allowed"),
    ("schedule: {overlap: both}" + WHOLE, "schedule.overlap = 'both'"),
    ("retries: 21" + WHOLE, "retries = 21"),
    ("retries: true" + WHOLE, "retries = True"),
    ("backoff_s: .inf" + WHOLE, "backoff_s = inf"),
    ("name: a\nname: b" + WHOLE, "name: given twice, line 2"),
    ("parameters: 3\nsteps: {a: {use: sft, recipe: forum}}", "parameters = 3"),
    ("parameters: {1: 2}\nsteps: {a: {use: sft, recipe: forum}}", "parameters"),
    ("steps: {}", "steps = {}"),
    ("steps: [a]", "steps = ['a']"),
    ("steps: {a: 3}", "steps.a = 3: expected a mapping with use"),
    ("steps: {a: {}}", "steps.a.use: missing"),
    ("{}", "steps: missing"),
    ("", "pipeline = "),
    ("- a", "pipeline = "),
    ("a: [", "not valid YAML"),
    ("a: &a [*a]", "not valid YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said[:50] for _, said in WRONG])
def test_a_mistake_is_one_line(load: Load, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("seed=1", "--set 'seed=1': not a parameter of this pipeline; seeds, share, label, options are allowed"),
        ("seeds", "--set 'seeds': expected NAME=VALUE"),
        ("seeds=", "--set 'seeds=': expected NAME=VALUE"),
        ("seeds=[0", "--set seeds: '[0' is not a YAML value"),
        ("seeds=x", "steps.arms: seeds = 'x'"),
        ("share=2", "steps.reward: "),
    ],
)
def test_a_wrong_parameter_is_one_line(r2m: Command, tmp_path: Path, given: str, said: str) -> None:
    """And nothing has been written."""
    (tmp_path / "night.yaml").write_text(WHOLE)
    storage = tmp_path / "storage"
    code, out, err = r2m(
        "pipeline", "run", str(tmp_path / "night.yaml"), "--set", given, "--storage", str(storage)
    )  # fmt: skip
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not storage.exists()


def test_a_pipeline_without_parameters_takes_none(load: Load) -> None:
    with pytest.raises(UserError, match="it has no parameters"):
        load("steps: {a: {use: sft, recipe: forum}}", "a=1")


def test_its_name_is_the_files_if_it_says_none(load: Load) -> None:
    assert load(WHOLE, name="other.yml").name == "other"
    with pytest.raises(UserError, match=r"expected a \.yaml file"):
        load(WHOLE, name="night.txt")
    with pytest.raises(UserError, match="name = 'a b'"):
        load(WHOLE, name="a b.yaml")


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"s{n}" for n in range(draw(st.integers(1, 7)))]
    return {name: draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) for name in names}


@given(graphs(), st.randoms(use_true_random=False))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200, deadline=None)
def test_every_order_respects_the_needs_and_every_circle_is_named(needs: dict[str, list[str]], random: Any) -> None:
    names = list(needs)
    random.shuffle(names)
    tree = {name: {"use": "sft", "recipe": "forum", "needs": needs[name]} for name in names}
    pipeline = Pipeline.model_validate({"name": "n", "steps": tree})
    try:
        order = graph(pipeline)
    except UserError as error:
        path = str(error).split(": ")[1].split(" -> ")
        assert path[0] == path[-1]
        assert all(after in needs[before] for before, after in pairwise(path))
        return
    assert set(order) == set(needs)
    place = {name: number for number, name in enumerate(order)}
    assert all(place[other] < place[name] for name, others in needs.items() for other in others)


@pytest.mark.parametrize(("step", "field"), [
    ({"use": "sft", "model": "org/model", "data": "x.jsonl"}, "data"),
    ({"use": "reward-model", "recipe": "forum", "policy": "./missing"}, "policy"),
    ({"use": "train", "recipe": "forum", "set": {"policy.model": "./missing"}, "seeds": [0]}, "policy.model"),
])  # fmt: skip
def test_what_is_not_there_is_refused_before_anything_runs(tmp_path, monkeypatch, step, field):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night.yaml").write_text(yaml.safe_dump({"steps": {"a": step}}))
    with pytest.raises(UserError, match=rf"^steps\.a: {re.escape(field)} = "):
        check_room_for(load_pipeline("night.yaml"), Where(str(tmp_path / "storage")))
