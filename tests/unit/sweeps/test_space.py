"""Ranges: what a sweep may vary, and the values that stand for it."""

import optuna
import pytest

from r2m.sweeps.space import INTERACT, Conditional, Parameter, checked, normal, points, searched_field


def parameter(**yaml: object) -> Parameter:
    return Parameter.model_validate(yaml)


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("task.seed", "task.seed: cannot be searched: the task is what every trial is asked"),
            ("policy.dtype", "models are prepared before the sweep"),
            ("reward.model", "models are prepared before the sweep"),
            ("reward.dtype", "models are prepared before the sweep"),
            ("run.seed", r"run.\* does not change the result; repetitions are the sweep's seeds"),
            ("algorithm.rounds", "every trial has the same budget: give budget.trajectories"),
            ("algorithm.trajectories", "every trial has the same budget"),
            ("algorithm.microbatch", "changes speed and memory, not the result"),
            ("reward.alfa", r"reward.alfa: unknown key; allowed in reward: .*\balpha\b"),
            ("alpha", r"alpha: unknown key; allowed: algorithm.NAME, reward.NAME"),
            ("algorithm", "algorithm: unknown key; allowed in algorithm: "),
        ],
    )
    def test_refused(self, key: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            searched_field(key)

    def test_what_is_refused_is_not_offered(self) -> None:
        with pytest.raises(ValueError, match="allowed in algorithm") as error:
            searched_field("algorithm.rate")
        assert "microbatch" not in str(error.value)
        assert "minibatches" in str(error.value)

    def test_the_interacting_settings_exist(self) -> None:
        for key in INTERACT:
            searched_field(key)


class TestNormal:
    def test_values_are_what_the_setting_makes_of_them(self) -> None:
        assert normal("reward.lr", "1e-5") == 1e-5
        assert normal("algorithm.responses", "8") == 8
        assert isinstance(normal("reward.alpha", 1), float)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("reward.alpha", 2.0, "reward.alpha = 2.0: input should be less than or equal to 1"),
            ("algorithm.lr", float("inf"), "algorithm.lr = inf: .*finite"),
            ("reward.no_eos", "drop", "reward.no_eos = 'drop': .*'keep', 'replace' or 'subtract'"),
            ("algorithm.responses", [4], r"algorithm.responses = \[4\]: "),
        ],
    )
    def test_refused(self, key: str, value: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            normal(key, value)


class TestParameter:
    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            ({}, "give one of uniform, loguniform, int, choice"),
            ({"uniform": [0, 1], "choice": [1]}, "give one of"),
            ({"uniform": [1, 1]}, "low must be less than high"),
            ({"loguniform": [0, 1]}, "low must be greater than 0"),
            ({"int": [4, 9], "step": 2}, "high - low must be a multiple of step = 2"),
            ({"uniform": [0, 1], "step": 1}, "step = 1: only an int has one"),
            ({"uniform": [0, float("inf")]}, "finite"),
            ({"choice": []}, "at least 1"),
        ],
    )
    def test_refused(self, yaml: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parameter(**yaml)

    @pytest.mark.parametrize(
        ("key", "yaml", "message"),
        [
            ("reward.alpha", {"uniform": [0, 2]}, "reward.alpha = 2.0: .*less than or equal to 1"),
            ("algorithm.clip_low", {"uniform": [0, 0.5]}, "algorithm.clip_low = 0.0: .*greater than 0"),
            ("algorithm.responses", {"int": [1, 4]}, "algorithm.responses = 1: .*greater than or equal to 2"),
            ("algorithm.responses", {"uniform": [4, 8]}, "it takes whole numbers; give int or choice"),
            ("reward.feedback", {"uniform": [0, 1]}, "it takes true or false; give it as a choice"),
            ("reward.no_eos", {"int": [0, 1]}, "it takes names; give it as a choice"),
            ("reward.lr", {"choice": ["1e-5", 1e-5]}, "a value occurs twice"),
            ("reward.attention_width", {"choice": [64, 0]}, "reward.attention_width = 0: "),
        ],
    )
    def test_of_a_setting(self, key: str, yaml: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parameter(**yaml).of(key)

    def test_text_is_a_number_where_the_setting_takes_one(self) -> None:
        assert parameter(loguniform=["1e-6", "1e-3"]).of("reward.lr").values == [1e-6, 1e-3]
        assert parameter(choice=["1e-6", 1]).of("reward.lr").values == [1e-6, 1.0]

    def test_contains(self) -> None:
        grid = parameter(int=[4, 12], step=4)
        assert [v for v in range(20) if grid.contains(v)] == [4, 8, 12]
        real = parameter(loguniform=[1e-6, 1e-3])
        assert [real.contains(v) for v in (9e-7, 1e-6, 1e-3, 1.1e-3)] == [False, True, True, False]
        assert not parameter(choice=[64, 128]).contains(65)

    def test_suggest_is_the_distribution(self) -> None:
        trial = optuna.create_study().ask()
        parameter(uniform=[0, 1]).suggest(trial, "u")
        parameter(loguniform=[1e-6, 1e-3]).suggest(trial, "l")
        parameter(int=[4, 12], step=4).suggest(trial, "i")
        parameter(choice=[True, False]).suggest(trial, "c")
        assert trial.distributions == {
            "u": optuna.distributions.FloatDistribution(0, 1),
            "l": optuna.distributions.FloatDistribution(1e-6, 1e-3, log=True),
            "i": optuna.distributions.IntDistribution(4, 12, step=4),
            "c": optuna.distributions.CategoricalDistribution([True, False]),
        }


def block(when: dict, **parameters: dict) -> Conditional:
    keys = {key.replace("__", "."): value for key, value in parameters.items()}
    return Conditional.model_validate({"when": when, "parameters": keys})


FEEDBACK = {"reward.feedback": parameter(choice=["true", "false"])}
ON = {"reward.feedback": [True]}
EPOCHS = block(ON, reward__epochs={"int": [1, 2]})


class TestConditional:
    def test_a_block_may_depend_on_an_earlier_block(self) -> None:
        blocks = [
            block(ON, reward__epochs={"int": [1, 2]}),
            block({"reward.epochs": [2]}, reward__lr={"choice": [1]}),
        ]
        fixed, conditional = checked(FEEDBACK, blocks)
        assert fixed["reward.feedback"].values == [True, False]
        assert points(fixed, conditional) == [
            {"reward.feedback": True, "reward.epochs": 2, "reward.lr": 1.0},  # epochs: the high end stands for it
            {"reward.feedback": False},
        ]

    @pytest.mark.parametrize(
        ("blocks", "message"),
        [
            (
                [block({"algorithm.responses": [4]}, reward__alpha={"uniform": [0, 1]})],
                r"conditional.0.when.algorithm.responses: not a parameter listed before \(reward.feedback\)",
            ),
            (
                [block({"reward.feedback": ["maybe"]}, reward__alpha={"uniform": [0, 1]})],
                r"conditional.0.when.reward.feedback = 'maybe': ",
            ),
            (
                [
                    block(ON, reward__epochs={"int": [1, 2]}),
                    block({"reward.epochs": [3]}, reward__lr={"choice": [1]}),
                ],
                r"conditional.1.when.reward.epochs = 3: not in the range",
            ),
            (
                [block(ON, reward__feedback={"choice": [True]})],
                r"conditional.0.parameters.reward.feedback: varied already under parameters",
            ),
            ([block(ON, reward__alpha={"uniform": [0, 2]})], r"conditional.0.parameters.reward.alpha = 2.0: "),
            (
                [
                    block(ON, reward__alpha={"uniform": [0, 1]}),
                    block({"reward.feedback": [False]}, reward__alpha={"uniform": [0, 0.5]}),
                ],
                r"conditional.1.parameters.reward.alpha: in another block with another range",
            ),
        ],
    )
    def test_refused(self, blocks: list[Conditional], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            checked(FEEDBACK, blocks)

    def test_one_key_in_two_blocks_that_both_apply_is_one_parameter(self) -> None:
        blocks = [block(ON, reward__alpha={"uniform": [0, 1]})] * 2
        fixed, conditional = checked(FEEDBACK, blocks)
        assert points(fixed, conditional) == [
            {"reward.feedback": True, "reward.alpha": 0.0},
            {"reward.feedback": True, "reward.alpha": 1.0},
            {"reward.feedback": False},
        ]


class TestPoints:
    def test_whole_numbers_that_matter_to_others_are_all_tried(self) -> None:
        space = {
            "algorithm.responses": parameter(int=[4, 12], step=4),
            "algorithm.lr": parameter(loguniform=[1e-5, 1e-3]),
            "algorithm.max_response_tokens": parameter(int=[8, 16]),
        }
        assert points(space, []) == [
            {"algorithm.responses": K, "algorithm.lr": 1e-3, "algorithm.max_response_tokens": 16} for K in (4, 8, 12)
        ]

    def test_too_many(self) -> None:
        space = {"algorithm.queries": parameter(int=[1, 200]), "algorithm.responses": parameter(int=[2, 100])}
        with pytest.raises(ValueError, match=r"parameters.algorithm.responses: more than 10000 combinations"):
            points(space, [])
