"""Which runs are repeats of one arm, which arms may be compared, and how each is called."""

from r2m.results.arms import setups

R2M = ["reward.feedback=on"]


def labels(results):
    return {arm.label: [view.run_id for view in arm.runs] for setup in setups(results)[0] for arm in setup.arms}


def test_runs_that_differ_in_the_seed_alone_are_one_arm_in_the_seeds_order(runs):
    runs.run("b", seed=2)
    runs.run("a", seed=1)
    runs.run("c", settings=R2M, seed=1)
    assert labels(runs.results()) == {"RLOO": ["a", "b"], "R2M": ["c"]}
    assert list(setups(runs.results())[0][0].arms[0].results) == [1, 2]


def test_arms_of_one_kind_are_told_apart_by_what_differs_between_them(runs):
    for i, omega in enumerate((0.5, 0.25)):
        runs.run(f"r{i}", settings=[*R2M, f"reward.omega_min={omega}"])
    runs.run("rloo", settings=["algorithm.lr=7e-4"])
    names = ["R2M · reward.omega_min=0.5", "R2M · reward.omega_min=0.25", "RLOO"]
    assert list(labels(runs.results())) == names


def test_numbers_that_are_equal_when_rounded_are_written_out(runs):
    for i, lr in enumerate((1.0001e-4, 1.0002e-4)):
        runs.run(f"r{i}", settings=[f"algorithm.lr={lr}"])
    assert list(labels(runs.results())) == ["RLOO · algorithm.lr=0.00010001", "RLOO · algorithm.lr=0.00010002"]


def test_a_section_of_its_own_is_told_in_words(runs):
    runs.run("plain")
    runs.run("lora", settings=["policy.lora.rank=8"])
    runs.run("vllm", settings=["rollout.engine=vllm"])
    assert list(labels(runs.results())) == [
        "RLOO · policy.lora=null, rollout.engine=own",
        "RLOO · policy.lora=rank 8 alpha 32 targets all-linear, rollout.engine=own",
        "RLOO · policy.lora=null, rollout.engine=vllm",
    ]


def swept(sweep, trial):
    return {"start": {"tags": {"r2m.sweep": sweep, "r2m.trial": trial}}}


def test_an_arm_of_a_sweep_is_called_by_its_trial_and_has_its_settings(runs):
    runs.run("s-rloo", **swept("s", "RLOO"))
    runs.run("s-t000", settings=R2M, **swept("s", "R2M default"))
    runs.run("s-t002", settings=[*R2M, "reward.alpha=0.25", "reward.lr=3.57e-5"], **swept("s", "trial 2"))
    runs.run("alone", settings=[*R2M, "reward.alpha=0.75"])
    (setup,), _ = setups(runs.results())
    by_settings = "R2M · reward.alpha=0.75, reward.lr=0.0001"
    assert [arm.label for arm in setup.arms] == ["RLOO", "R2M default", "t002", by_settings]
    assert [arm.kind for arm in setup.arms] == ["RLOO", "R2M", "R2M", "R2M"]
    assert setup.arms[0].settings == {}  # what it has, all have
    assert setup.arms[2].settings == {"reward.alpha": 0.25, "reward.lr": 3.57e-5}


def test_of_two_sweeps_a_trial_says_whose_it_is_and_what_both_have_is_one_arm(runs):
    for seed, sweep in enumerate(("a", "b")):
        runs.run(f"{sweep}-rloo", seed=seed, **swept(sweep, "RLOO"))
        runs.run(f"{sweep}-t001", seed=seed, settings=[*R2M, f"reward.alpha=0.{seed + 1}"], **swept(sweep, "trial 1"))
    assert labels(runs.results()) == {"RLOO": ["a-rloo", "b-rloo"], "a t001": ["a-t001"], "b t001": ["b-t001"]}


def test_trials_of_equal_settings_are_one_arm_with_both_names_and_names_stay_apart(runs):
    runs.run("s-t001", settings=R2M, **swept("s", "trial 1"))
    runs.run("s-t002", settings=R2M, seed=1, **swept("s", "trial 2"))
    runs.run("s-mine", **swept("s", "GRPO"))
    runs.run("grpo", settings=["algorithm.advantage=grpo"])
    assert list(labels(runs.results())) == ["t001 = t002", "s GRPO", "GRPO"]


def test_what_cannot_change_the_result_makes_no_arm(runs):
    runs.run("a", settings=["reward.alpha=0.5", "reward.lr=1e-3", "reward.omega_min=0.1"])  # no head without feedback
    runs.run("b", settings=["reward.alpha=0.25", "reward.lr=1e-4", "run.eval_every=5"], seed=1)
    assert labels(runs.results()) == {"RLOO": ["a", "b"]}
    runs.run("c", settings=["reward.no_eos_value=-2"], seed=2)
    assert len(labels(runs.results())) == 2


def test_a_journal_that_lacks_a_newer_setting_has_its_default(runs):
    runs.run("new", seed=0)
    old = runs.run("old", seed=1)
    del old.start["config"]["reward"]["no_eos"], old.start["config"]["run"]["judge"]
    del old.start["config"]["task"]["space_pairs"]
    assert labels(runs.results()) == {"RLOO": ["new", "old"]}


def test_other_tasks_data_models_or_evaluations_are_other_setups(runs):
    runs.run("a")
    for i, setting in enumerate(("task.artefact=0.5", "reward.model=other", "run.eval_seed=1", "policy.model=p")):
        runs.run(f"b{i}", settings=[setting])
    runs.run("c", data="e")
    found, repeated = setups(runs.results())
    assert len(found) == 6
    assert not repeated
    assert all(len(setup.arms) == 1 for setup in found)
    assert "task.artefact=0.5" in found[1].label
    assert "data=e" in found[5].label


def test_a_single_setup_is_called_by_its_task_and_policy(runs):
    runs.run("a")
    (setup,), _ = setups(runs.results())
    assert setup.label == "forum, policy forum-policy"


def test_of_equal_settings_and_seed_the_run_that_came_furthest_counts(runs):
    runs.run("started", (0.1,), (0.2,), (0.3,), status="running")
    runs.run("whole", (0.1,), (0.2,))
    (setup,), repeated = setups(runs.results())
    assert [view.run_id for view in setup.arms[0].runs] == ["whole"]
    assert repeated == ["started"]


def test_how_the_reward_model_is_trained_on_the_same_data_is_an_arm_and_no_setup(runs):
    runs.run("plain")
    runs.run("mixed", settings=["task.rrm=0.2"])
    runs.run("r2m", settings=[*R2M, "task.rrm=0.2"])
    runs.run("noisy", settings=["task.label_noise=0.3"])
    first, second = setups(runs.results())[0]
    assert [arm.label for arm in first.arms] == ["RLOO", "RLOO, RRM", "R2M, RRM"]
    assert [arm.label for arm in second.arms] == ["RLOO"]


def test_what_reshapes_a_reward_is_an_arm_of_the_setup(runs):
    runs.run("plain")
    runs.run("par", settings=["reward.shaping=par"])
    runs.run("more", settings=["reward.shaping=par", "reward.par_references=4"])
    runs.run("short", settings=["reward.length_penalty=0.1"])
    runs.run("r2m", settings=[*R2M, "reward.shaping=par"])
    ((setup,), repeated) = setups(runs.results())
    assert [arm.label for arm in setup.arms] == [
        "RLOO",
        "RLOO + PAR · reward.par_references=1",
        "RLOO + PAR · reward.par_references=4",
        "RLOO + length penalty",
        "R2M + PAR",
    ]
    assert repeated == []
