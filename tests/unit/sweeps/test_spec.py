"""The sweep file as a whole: what it refuses, what runs it asks for, and the shipped ones."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2m.config import load, override
from r2m.errors import UserError
from r2m.sweeps.schema import Sweep, grace
from r2m.sweeps.spec import baseline_point, check_suggest, config_of, load_sweep, overrides_of
from r2m.sweeps.stopping import evaluations_of

SHIPPED = Path(__file__).parents[3] / "search_spaces"
GOLD = [{"metric": "eval/gold"}]
ALPHA = {"reward.alpha": {"uniform": [0, 1]}}
SMALL: dict[str, Any] = {"recipe": "forum", "parameters": ALPHA, "objectives": GOLD}


def written(folder: Path, **changes: Any) -> Sweep:
    (folder / "s.yaml").write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return load_sweep(folder / "s.yaml")


class TestLoad:
    def test_defaults(self, tmp_path: Path) -> None:
        sweep = written(tmp_path)
        assert sweep.baselines == {"RLOO": {"reward.feedback": False}, "R2M default": {"reward.feedback": True}}
        assert (sweep.seeds, sweep.confirm) == ([0], [1000, 1001, 1002, 1003, 1004])
        assert (sweep.sampler.kind, sweep.early_stopping.kind) == ("tpe", "none")

    def test_yaml_1_1_takes_1e_6_for_text(self, tmp_path: Path) -> None:
        (tmp_path / "s.yaml").write_text(
            "recipe: forum\nparameters: {reward.lr: {loguniform: [1e-6, 1e-3]}}\nobjectives: [{metric: eval/gold}]\n"
            "enqueue: [{reward.lr: 1e-4}]\nset: {algorithm.lr: 3e-4}\n"
        )
        sweep = load_sweep(tmp_path / "s.yaml")
        assert sweep.parameters["reward.lr"].loguniform == [1e-6, 1e-3]
        assert sweep.enqueue == [{"reward.lr": 1e-4}]
        assert config_of(sweep, {}, 0).algorithm.lr == 3e-4

    def test_it_cannot_be_changed_later(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="frozen"):
            written(tmp_path).recipe = "other"  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"colour": 1}, r"colour: unknown key; allowed: recipe, set, parameters, .*confirm"),
            ({"objectives": [{"metrik": "x"}]}, r"objectives.0.metric: missing; objectives.0.metrik: unknown key; "),
            ({"objectives": [{"metrik": "x"}]}, r"metrik: unknown key; allowed: metric, direction, matched_kl$"),
            ({"objectives": []}, "objectives = .*at least 1 item"),
            ({"parameters": {}}, "parameters: missing: nothing varies; .* give budget.trials: 0"),
            ({"budget": {"trials": 0}}, "budget.trials = 0: without a search, leave parameters out"),
            (
                {"parameters": {}, "budget": {"trials": 0}},
                r"confirm = \[1000, .*: without a search there is no winner to confirm; give confirm: \[\]",
            ),
            (
                {"parameters": {}, "budget": {"trials": 0}, "confirm": [], "baselines": {}},
                "baselines: missing: without a search, there is nothing else to run",
            ),
            ({"parameters": {"reward.alpha": {"uniform": [0, 2]}}}, r"parameters.reward.alpha = 2.0: .*equal to 1"),
            (
                {"parameters": {"reward.lr": {"loguniform": [0, 1]}}},
                r"parameters.reward.lr: loguniform = \[0.0, 1.0\]",
            ),
            ({"parameters": {"reward.alpha": {"unifrom": [0, 1]}}}, r"unifrom: unknown key; allowed: uniform, .*int"),
            ({"parameters": {"reward.alpha": {"uniform": [0]}}}, r"parameters.reward.alpha.uniform = \[0\]"),
            ({"parameters": {"reward.alpha": {"int": ["a", 1]}}}, r"parameters.reward.alpha.int.0 = 'a': "),
            ({"parameters": {"task.seed": {"int": [0, 9]}}}, "parameters.task.seed: cannot be searched"),
            (
                {"parameters": {"reward.attention_width": {"choice": [64, 66]}}},
                r"parameters.reward.attention_width = 66: reward: num_heads = 4 must divide",
            ),
            (
                {"parameters": ALPHA | {"algorithm.responses": {"choice": [2, 4]}}},
                r"parameters, at reward.alpha = 1.0, algorithm.responses = 2: reward.alpha = 1.0 needs",
            ),
            (
                {"parameters": {"algorithm.responses": {"choice": [4, 100]}}},
                r"parameters.algorithm.responses = 100: .*has no query left",
            ),
            ({"conditional": [{"when": {}, "parameters": ALPHA}]}, r"conditional.0.when = \{\}"),
            (
                {"conditional": [{"when": {"reward.alpha": [0]}, "parameters": {"reward.lr": {"choice": [0]}}}]},
                r"conditional.0.parameters.reward.lr = 0: .*greater than 0",
            ),
            ({"set": {"run.seed": 1}}, "set.run.seed: the sweep sets it; give seeds and confirm"),
            ({"set": {"run.eval_every": 0}}, "set.run.eval_every: the sweep sets it; give budget.evaluations"),
            ({"set": {"run.storage": "x"}}, "set.run.storage: the sweep sets it"),
            (
                {"set": {"algorithm.rounds": 3}, "budget": {"trajectories": 960}},
                "set.algorithm.rounds: budget.trajectories = 960 sets it; give one",
            ),
            ({"set": {"reward.alpha": 0.1}}, "set.reward.alpha: it is varied under parameters"),
            ({"set": {"reward": {"alpha": 0.1}}}, "set.reward = .*dotted key"),
            ({"set": {"algorithm.rate": 0.1}}, "recipe and set: algorithm.rate: unknown key; allowed: .*lr"),
            ({"recipe": "forums"}, "recipe = 'forums': not one of"),
            ({"budget": {"trajectories": 95}}, "budget.trajectories = 95: .*less than one round"),
            ({"budget": {"trials": -1}}, "budget.trials = -1: .*greater than or equal to 0"),
            ({"sampler": {"kind": "grid"}}, "sampler.kind = 'grid': .*'tpe', 'random' or 'nsga2'"),
            ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: a seed occurs twice"),
            ({"seeds": []}, "seeds = .*at least 1"),
            ({"confirm": [7, 0]}, r"confirm = \[7, 0\]: \[0\] are among seeds"),
            ({"baselines": {"Big": {"reward.alpha": 2}}}, "baselines.Big: reward.alpha = 2: .*equal to 1"),
            ({"baselines": {"Big": {"run.seed": 2}}}, "baselines.Big: run.seed: cannot be searched"),
            ({"baselines": {"A b": {}, "a-B": {}}}, "baselines.A b: runs are named after it .'a-b'.: .*differ"),
            ({"baselines": {"T003": {}}}, "baselines.T003: .*no trial's name"),
            ({"baselines": {"Trial 3": {}}}, "baselines.Trial 3: .*no trial's name"),
            ({"baselines": {"é": {}}}, "baselines.é: .*begin with a letter"),
            ({"enqueue": [{"reward.alpha": 2}]}, "enqueue.0.reward.alpha = 2: .*equal to 1"),
            ({"enqueue": [{"reward.lr": 1}]}, "enqueue.0.reward.lr: not a parameter"),
            (
                {"parameters": {"reward.alpha": {"uniform": [0, 0.5]}}, "enqueue": [{"reward.alpha": 0.6}]},
                r"enqueue.0.reward.alpha = 0.6: not in its range, \[0.0, 0.5\]",
            ),
            ({"early_stopping": {"omega_min": 0.5}}, "early_stopping.omega_min: not in a YAML file"),
            ({"early_stopping": {"kind": "median"}}, "'median': nothing to save: .*Ω = 0.0 acts from 100% of a run"),
            (
                {
                    "early_stopping": {"kind": "asha"},
                    "objectives": [*GOLD, {"metric": "eval/kl_sequence", "direction": "minimize"}],
                },
                "early_stopping.kind = 'asha': not with several objectives",
            ),
            (
                {"early_stopping": {"kind": "asha"}, "objectives": [{"metric": "eval/vanilla", "matched_kl": 10}]},
                "early_stopping.kind = 'asha': not with matched_kl",
            ),
            ({"recipe": "tldr_pythia_1b"}, "objectives.0: metric = 'eval/gold': the task has no gold reward"),
            ({"objectives": [{"metric": "eval/proxy"}]}, "objectives.0: metric = 'eval/proxy': R2M trains this"),
        ],
    )
    def test_refused(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            written(tmp_path, **changes)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("s.yaml", "recipe: [", "not valid YAML"),
            ("s.yaml", "- 1", "expected a mapping"),
            ("s.yaml", "recipe: a\nparameters: {x: 1, y: 2, x: 3}", "not valid YAML .x: given twice, line 2."),
            ("s.toml", "", "expected a .yaml or a .py file"),
            ("s.py", "1 / 0", "ZeroDivisionError: division by zero"),
            ("s.py", "raise KeyboardInterrupt", "s.py': KeyboardInterrupt$"),
            ("s.py", "exit()", "s.py': SystemExit: None$"),
            ("s.py", "def f(): f()\nf()", "s.py': RecursionError: maximum recursion depth"),
            ("s.py", "class X(BaseException): pass\nraise X('a\\nb')", "s.py': X: a b$"),
            ("s.py", "class X(Exception):\n def __str__(self): 1 / 0\nraise X", "s.py': X$"),
            ("s.py", "def __getattr__(name): raise KeyboardInterrupt", "expected SWEEP, a mapping, and suggest"),
            ("s.py", "SWEEP = {}", "expected SWEEP, a mapping, and suggest"),
            ("s.py", "def suggest(trial): ...\nSWEEP = 3", "expected SWEEP, a mapping"),
            ("s.py", "def suggest(trial): ...\nSWEEP = {}", "recipe: missing; objectives: missing"),
        ],
    )
    def test_no_sweep(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message) as error:
            load_sweep(tmp_path / name)
        assert "\n" not in str(error.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such file"):
            load_sweep(tmp_path / "gone.yaml")


FULL: dict[str, Any] = {
    "parameters": {
        "reward.feedback": {"choice": [True, False]},
        "algorithm.responses": {"int": [3, 20]},
        "algorithm.lr": {"loguniform": [1e-6, 1e-3]},
        "algorithm.minibatches": {"choice": [1, 2]},
    },
    "conditional": [{"when": {"reward.feedback": [True]}, "parameters": {"reward.omega_min": {"uniform": [0.2, 1]}}}],
}


class TestRuns:
    def test_the_command_of_a_run(self, tmp_path: Path) -> None:
        sweep = written(tmp_path, set={"algorithm.beta": 0.1}, parameters=FULL["parameters"])
        params = {"algorithm.responses": 8, "algorithm.lr": 1e-5, "reward.feedback": True}
        assert overrides_of(sweep, params, 3) == [
            "algorithm.beta=0.1",
            "algorithm.responses=8",
            "algorithm.lr=1.0e-05",
            "reward.feedback=true",
            "algorithm.queries=12",
            "algorithm.trajectories=5760",
            "algorithm.rounds=null",
            "run.eval_every=6",
            "run.seed=3",
        ]
        config = config_of(sweep, params, 3, "run.storage=/elsewhere")
        assert config.algorithm.total_rounds == 60
        assert (config.algorithm.lr, config.run.storage, config.run.seed) == (1e-5, "/elsewhere", 3)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 2**31), budget=st.one_of(st.none(), st.integers(96, 9000)))
    def test_every_trial_is_valid_and_costs_the_same(self, tmp_path: Path, seed: int, budget: int | None) -> None:
        sweep = written(tmp_path, **FULL, budget={"trajectories": budget})
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
        params = sweep.suggest(trial)
        assert params == trial.params
        assert ("reward.omega_min" in params) == params["reward.feedback"]
        config = config_of(sweep, params, 0)
        a = config.algorithm
        size = a.queries * a.responses
        assert (budget or 5760) - size < a.total_rounds * size <= (budget or 5760)
        assert config == sweep.build(params).model_copy(update={"run": config.run})
        assert config == load("forum", overrides_of(sweep, params, 0))
        assert evaluations_of(config) >= min(10, a.total_rounds)
        for key, value in params.items():
            section, name = key.split(".")
            assert getattr(getattr(config, section), name) == value

    @given(value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
    def test_values_survive_the_command_line(self, value: object) -> None:
        read = yaml.safe_load(override("x", value).removeprefix("x="))
        assert (type(read), read) == (type(value), value)

    @given(value=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t:#'\"-{e0.")))
    def test_so_does_text(self, value: str) -> None:
        assert yaml.safe_load(override("x", value).removeprefix("x=")) == value

    def test_the_searched_space_is_optunas(self, tmp_path: Path) -> None:
        """A study takes the same names and ranges from every trial, the conditional ones too."""
        sweep = written(tmp_path, **FULL)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=3))
        for _ in range(10):
            trial = study.ask()
            study.tell(trial, sweep.suggest(trial)["algorithm.lr"])
        assert {trial.params["reward.feedback"] for trial in study.trials} == {True, False}


class TestGrace:
    def test_the_lowest_omega_and_the_latest_horizon_decide(self, tmp_path: Path) -> None:
        stop = {"kind": "median"}
        quarter = {"reward.omega_min": {"uniform": [0.25, 1]}}  # t* = 2/3 T
        assert grace(written(tmp_path, parameters=quarter, early_stopping=stop)) == 7  # round 42 of 60
        # K = 7: T = 63 and t* = 42, still evaluation 7; K = 33: n = 2, T = 87, every 8, t* = 58: evaluation 8
        ks = quarter | {"algorithm.responses": {"choice": [4, 7, 33]}}
        assert grace(written(tmp_path, parameters=ks, early_stopping=stop)) == 8

    def test_a_fixed_omega(self, tmp_path: Path) -> None:
        sweep = written(tmp_path, set={"reward.omega_min": 0.5}, early_stopping={"kind": "median"})
        assert grace(sweep) == 5

    def test_without_feedback_there_is_none_to_wait_for(self, tmp_path: Path) -> None:
        lr = {"algorithm.lr": {"loguniform": [1e-5, 1e-3]}}
        off = {"reward.feedback": False}
        assert grace(written(tmp_path, set=off, parameters=lr, early_stopping={"kind": "median"})) == 1
        assert grace(written(tmp_path, set=off, parameters=lr, early_stopping={"kind": "asha", "grace": 0.3})) == 3


class TestBaselines:
    def test_inside_the_space(self, tmp_path: Path) -> None:
        sweep = written(tmp_path, parameters=ALPHA | {"algorithm.lr": {"choice": [2e-4, 1e-4]}})
        assert baseline_point(sweep, "R2M default") == {"reward.alpha": 0.5, "algorithm.lr": 2e-4}
        assert baseline_point(sweep, "RLOO") is None

    def test_outside_a_range(self, tmp_path: Path) -> None:
        assert baseline_point(written(tmp_path, parameters={"reward.alpha": {"uniform": [0.6, 1]}}), "RLOO") is None
        sweep = written(tmp_path, parameters={"algorithm.responses": {"int": [6, 8], "step": 2}})
        assert baseline_point(sweep, "R2M default") is None

    def test_conditional_parameters(self, tmp_path: Path) -> None:
        sweep = written(tmp_path, **FULL)
        common = {"algorithm.responses": 4, "algorithm.lr": 2e-4, "algorithm.minibatches": 1}
        assert baseline_point(sweep, "RLOO") == {"reward.feedback": False} | common
        assert baseline_point(sweep, "R2M default") is None  # its Ω = 0 is below 0.2

    def test_what_it_changes_beside_the_parameters_keeps_it_out(self, tmp_path: Path) -> None:
        sweep = written(tmp_path, baselines={"slow": {"algorithm.lr": 1e-5}, "high": {"reward.alpha": 0.9}})
        assert baseline_point(sweep, "slow") is None
        assert baseline_point(sweep, "high") == {"reward.alpha": 0.9}

    def test_a_baseline_with_other_responses_costs_the_same(self, tmp_path: Path) -> None:
        sweep = written(tmp_path, baselines={"wide": {"algorithm.responses": "12"}})
        config = config_of(sweep, sweep.baselines["wide"], 0)
        assert (config.algorithm.queries, config.algorithm.total_rounds) == (8, 60)


PYTHON = """
SWEEP = {{"recipe": "forum", "objectives": [{{"metric": "eval/gold"}}], {more}}}

def suggest(trial):
    alpha = trial.suggest_float("a", 0, 1)
    return {returned}
"""


class TestPython:
    def sweep(self, folder: Path, returned: str, more: str = "") -> Sweep:
        (folder / "s.py").write_text(PYTHON.format(returned=returned, more=more))
        return load_sweep(folder / "s.py")

    def test_suggest_says_what_varies(self, tmp_path: Path) -> None:
        sweep = self.sweep(tmp_path, "{'reward.alpha': alpha, 'reward.omega_min': str(1 - alpha)}")
        assert sweep.suggest(optuna.trial.FixedTrial({"a": 0.25})) == {"reward.alpha": 0.25, "reward.omega_min": 0.75}
        assert baseline_point(sweep, "R2M default") is None

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            ("alpha", "suggest, trial 0: returned 0.25, expected a mapping"),
            ("{'reward.alfa': alpha}", "suggest, trial 0: reward.alfa: unknown key"),
            ("{'reward.alpha': 2}", "suggest, trial 0: reward.alpha = 2: "),
            ("{'task.seed': 1}", "suggest, trial 0: task.seed: cannot be searched"),
            ("{'algorithm.responses': 100}", "suggest, trial 0: algorithm.responses = 100: .*no query left"),
            ("{'reward.num_heads': 3}", "suggest, trial 0: reward: num_heads = 3 must divide"),
        ],
    )
    def test_it_is_checked_each_time(self, tmp_path: Path, returned: str, message: str) -> None:
        sweep = self.sweep(tmp_path, returned)
        with pytest.raises(UserError, match=message):
            sweep.suggest(optuna.trial.FixedTrial({"a": 0.25}))

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            ("{}['x']", "^suggest, trial 0: KeyError: 'x'$"),
            ("exit()", "^suggest, trial 0: SystemExit: None$"),
            ("suggest(trial)", "^suggest, trial 0: RecursionError: maximum recursion depth"),
            ("(_ for _ in ()).throw(KeyboardInterrupt)", "^suggest, trial 0: KeyboardInterrupt$"),
            ("{'reward.alfa': alpha}", "^suggest, trial 0: reward.alfa: unknown key"),
        ],
    )
    def test_what_fails_at_every_point_is_refused(self, tmp_path: Path, returned: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_suggest(self.sweep(tmp_path, returned))

    def test_what_fails_at_some_points_is_not(self, tmp_path: Path) -> None:
        tried = "{'reward.alpha': alpha if trial.number else 2}"
        check_suggest(self.sweep(tmp_path, tried))

    def test_early_stopping_needs_to_know_omega(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"give early_stopping.omega_min, the lowest Ω that suggest gives"):
            self.sweep(tmp_path, "{}", "'early_stopping': {'kind': 'median'}")
        returned = "{'reward.omega_min': alpha, 'algorithm.responses': 33}"
        sweep = self.sweep(tmp_path, returned, "'early_stopping': {'kind': 'median', 'omega_min': 0.25}")
        assert sweep.suggest(optuna.trial.FixedTrial({"a": 0.25}))["algorithm.responses"] == 33
        with pytest.raises(UserError, match=r"its Ω = 0.0 acts after evaluation .*lower early_stopping.omega_min"):
            sweep.suggest(optuna.trial.FixedTrial({"a": 0.0}))

    def test_ranges_are_not_said_twice(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="parameters: not in a Python file"):
            self.sweep(tmp_path, "{}", "'parameters': {'reward.alpha': {'uniform': [0, 1]}}")


class TestShipped:
    @pytest.mark.parametrize(
        ("name", "varies", "trajectories"),
        [
            ("r2m_head", {"reward.alpha", "reward.omega_min", "reward.lr", "reward.attention_width"}, 5760),
            ("policy", {"algorithm.lr", "algorithm.beta", "algorithm.clip_low", "algorithm.responses"}, 5760),
            (
                "r2m_full",
                {"reward.alpha", "reward.omega_min", "algorithm.responses", "algorithm.lr", "reward.lr"},
                5760,
            ),
            ("forum_demo", {"reward.alpha", "reward.omega_min", "reward.lr"}, 1920),
        ],
    )
    def test_it_is_what_its_name_says(self, name: str, varies: set[str], trajectories: int) -> None:
        sweep = load_sweep(SHIPPED / f"{name}.yaml")
        assert set(sweep.parameters) == varies
        for params in [*sweep.points(), *sweep.baselines.values()]:
            a = config_of(sweep, params, sweep.seeds[0]).algorithm
            assert a.total_rounds * a.queries * a.responses == trajectories

    def test_there_are_these(self) -> None:
        assert {p.stem for p in SHIPPED.glob("*.yaml")} == {"r2m_head", "policy", "r2m_full", "forum_demo"}

    def test_the_tuned_baselines_are_trials(self) -> None:
        assert baseline_point(load_sweep(SHIPPED / "policy.yaml"), "RLOO") is not None
        for name in ("r2m_head", "forum_demo"):
            assert baseline_point(load_sweep(SHIPPED / f"{name}.yaml"), "R2M default") is not None

    def test_the_main_sweep_may_stop_after_63_percent(self) -> None:
        assert grace(load_sweep(SHIPPED / "r2m_full.yaml")) == 13  # t* = 37.9 of 60 rounds, evaluated every third


def test_it_loads_neither_torch_nor_ray_nor_mlflow() -> None:
    code = "import sys, r2m.sweeps.spec; print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
