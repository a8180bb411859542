"""The tree of settings: overrides, one-line errors, the digest, and the recipes against the paper."""

import os
import re
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest
import yaml
from sqlalchemy.engine import make_url

from r2m.config import ESTIMATORS, Algorithm, Config, arm_of, digest, load, recipes, validate
from r2m.config.newer import NEWER
from r2m.config.paths import check_places, check_storage_folder, setting
from r2m.config.uris import check_uri, sqlite_path, sqlite_uri
from r2m.core.advantages import ADVANTAGES
from r2m.errors import UserError, shown

PAPER = {"ultrafeedback_qwen2p5_3b", "ultrafeedback_llama3_8b", "tldr_pythia_2p8b", "tldr_pythia_1b"}
ADAPTERS = {f"{name}_lora" for name in PAPER}
MINIMAL = {"task": {"kind": "forum"}, "algorithm": {"rounds": 2}}


class TestLoad:
    def test_a_file_is_named_after_itself(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(MINIMAL))
        assert load(str(tmp_path / "mine.yaml")).recipe == "mine"
        assert load("forum").recipe == "forum"

    def test_overrides_go_on_top_in_order(self) -> None:
        c = load("forum", ["algorithm.lr=1e-5", "run.seed=3", "reward.feedback=false", "algorithm.lr=2.5e-5"])
        assert (c.algorithm.lr, c.run.seed, c.reward.feedback) == (2.5e-5, 3, False)

    def test_an_override_may_open_a_section_and_set_null(self) -> None:
        c = load("forum", ["run.workers=2", "algorithm.rounds=null", "algorithm.trajectories=960"])
        assert c.run.workers == 2
        assert c.algorithm.total_rounds == 10  # of 24 * 4

    def test_settings_cannot_be_changed_later(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load("forum").run.seed = 1  # type: ignore[misc]


class TestErrors:
    """One line each, with the field, its value and what is allowed."""

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("algorithm.lr", r"--set 'algorithm.lr': expected key=value"),
            ("algorithm.learning_rate=1", r"algorithm.learning_rate: unknown key; allowed: .*\blr\b"),
            ("task.post=1", r"task.post: unknown key; allowed: .*\bposts\b"),
            ("colour=1", r"colour: unknown key; allowed: .*algorithm.*"),
            ("algorithm.lr.value=1", r"--set .*: lr is a value, not a section"),
            ("algorithm.lr=[", r"not a YAML value"),
            ("algorithm.lr=0", r"algorithm.lr = 0: .*greater than 0"),
            ("algorithm.lr=.nan", r"algorithm.lr = nan: .*finite"),
            ("algorithm.lr=fast", r"algorithm.lr = 'fast': "),
            ("reward.omega_min=1.5", r"reward.omega_min = 1.5: .*less than or equal to 1"),
            ("reward.no_eos=drop", r"reward.no_eos = 'drop': .*'keep', 'replace' or 'subtract'"),
            ("task.kind=chess", r"task.*'forum', 'text'"),
            ("run.keep_checkpoints=1", r"run.keep_checkpoints = 1: .*greater than or equal to 2"),
            ("reward.num_heads=3", r"reward: num_heads = 3 must divide attention_width = 128"),
            ("algorithm.minibatches=5", r"algorithm: minibatches = 5 must divide queries = 24"),
            ("algorithm.microbatch=6", r"microbatch = 6 must be a divisor or a multiple of responses = 4"),
            ("algorithm.trajectories=960", r"give trajectories or rounds, one of the two"),
            ("algorithm.rounds=null", r"give trajectories or rounds, one of the two"),
            ("algorithm.responses=2", r"reward.alpha = 0.5 needs algorithm.responses >= 3 \(it is 2\)"),
            ("algorithm.advantage=ppo", r"algorithm.advantage = 'ppo': .*'rloo', 'grpo', 'remax', 'reinforce_pp'"),
            ("algorithm.epochs=0", r"algorithm.epochs = 0 trains nothing, .*; set reward.feedback=off"),
            ("reward.hidden=zeros", r"reward.hidden = 'zeros': .*'policy' or 'noise'"),
            ("reward.omega_schedule=linear", r"reward.omega_schedule = 'linear': .*'cosine' or 'constant'"),
            ("run.workers=5", r"algorithm.queries = 24 must be a multiple of minibatches \* workers = 5"),
            ("reward.minibatches=7", r"algorithm.queries = 24 must be a multiple of reward.minibatches"),
        ],
    )
    def test_override(self, override: str, message: str) -> None:
        with pytest.raises(UserError) as error:
            load("forum", [override])
        text = str(error.value)
        assert re.search(message, text), text
        assert "\n" not in text

    def test_a_budget_of_less_than_a_round(self) -> None:
        with pytest.raises(UserError, match=r"trajectories = 95 is less than one round of .* = 96"):
            load("forum", ["algorithm.rounds=null", "algorithm.trajectories=95"])

    def test_two_responses_are_enough_without_the_entropy_or_the_feedback(self) -> None:
        assert load("forum", ["algorithm.responses=2", "reward.alpha=0"]).algorithm.responses == 2
        for other in ("reward.feedback=false", "reward.train_head=off"):
            assert load("forum", ["algorithm.responses=2", other]).algorithm.responses == 2

    @pytest.mark.parametrize("advantage", ["remax", "reinforce_pp"])
    def test_an_advantage_for_each_token_needs_a_ratio_for_each(self, advantage: str) -> None:
        by_sequence = (f"algorithm.advantage={advantage}", "algorithm.ratio_level=sequence")
        with pytest.raises(UserError, match=f"ratio_level = 'sequence': advantage = {advantage} with kl_placement"):
            load("forum", [*by_sequence, "algorithm.kl_placement=reward"])
        load("forum", by_sequence)  # with the KL in the loss, a response has one advantage

    def test_a_text_task_names_its_models(self) -> None:
        task = {"kind": "text", "data": "rows.jsonl"}
        with pytest.raises(UserError, match=r"policy.model = null: a text task has no model of its own"):
            validate(MINIMAL | {"task": task})
        with pytest.raises(UserError, match=r"reward.model = null"):
            validate(MINIMAL | {"task": task, "policy": {"model": "somewhere"}})

    def test_all_mistakes_are_named_at_once(self) -> None:
        with pytest.raises(UserError, match=r"algorithm.lr = -1: .*; run.seed = -1: "):
            load("forum", ["algorithm.lr=-1", "run.seed=-1"])

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("broken.yaml", "task: [", "not valid YAML"),
            ("list.yaml", "- 1", "expected a mapping"),
            ("empty.yaml", "", "expected a mapping"),
            ("no_task.yaml", "algorithm: {rounds: 1}", "task: missing"),
        ],
    )
    def test_file(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message) as error:
            load(str(tmp_path / name))
        assert "\n" not in str(error.value)

    def test_no_such_recipe(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"'forums': not one of .*forum.*, nor a .yaml file"):
            load("forums")
        with pytest.raises(UserError, match="no such file"):
            load(str(tmp_path / "gone.yaml"))


class TestDigest:
    def test_it_is_of_what_determines_the_result(self) -> None:
        digest = load("forum").digest()
        assert load("forum").digest() == digest
        assert load("forum", ["run.storage=elsewhere", "run.tracking_uri=sqlite:///x.db"]).digest() == digest
        for override in ("run.seed=1", "algorithm.lr=7e-5", "task.posts=10", "reward.feedback=false"):
            assert load("forum", [override]).digest() != digest

    def test_a_newer_setting_is_no_part_of_it_where_it_does_nothing(self) -> None:
        for recipe in ("forum", "smollm2_tldr"):
            c = load(recipe)
            tree = c.model_dump(mode="json")
            for key in ("storage", "tracking_uri"):
                del tree["run"][key]
            for section, newer in NEWER.items():
                for key in newer.keys() & tree[section].keys():
                    assert tree[section].pop(key) == newer[key]  # its default
            assert digest(tree) == c.digest()
        for override in (
            "task.rrm=0.5",
            "reward.residual=off",
            "reward.head_gain=1",
            "reward.labels=4",
            "reward.anchor=0.1",
        ):
            assert load("forum", [override]).digest() != load("forum").digest()

    def test_it_survives_a_round_trip(self) -> None:
        c = load("forum", ["algorithm.lr=3e-5"])
        assert validate(c.model_dump(mode="json")).digest() == c.digest()


class TestArm:
    """What MLflow and the reports group runs by."""

    @pytest.mark.parametrize(
        ("overrides", "arm"),
        [
            ((), "R2M"),
            (("reward.feedback=off",), "RLOO"),
            (("reward.feedback=off", "algorithm.epochs=0"), "SFT"),
            (("algorithm.advantage=grpo",), "R2M+GRPO"),
            (("algorithm.advantage=grpo", "reward.feedback=off"), "GRPO"),
            (("algorithm.advantage=remax", "reward.feedback=off"), "ReMax"),
            (("algorithm.advantage=reinforce_pp", "reward.feedback=off"), "REINFORCE++"),
            (("algorithm.advantage=reinforce_pp_baseline", "reward.feedback=off"), "REINFORCE++-baseline"),
            (("reward.hidden=noise",), "R2M, noise"),
            (("reward.train_head=off",), "R2M, no training"),
            (("reward.train_head=off", "reward.alpha=0"), "R2M, no training"),  # alpha weighs what is not there
            (("reward.alpha=1",), "R2M, no BT"),
            (("reward.alpha=0",), "R2M, no GRE"),
            (("reward.omega_schedule=constant", "reward.omega_min=0.6"), "R2M, fixed Ω"),
            (("reward.hidden=noise", "reward.alpha=0", "algorithm.advantage=grpo"), "R2M+GRPO, noise, no GRE"),
            (("reward.feedback=off", "reward.hidden=noise", "reward.alpha=0"), "RLOO"),  # nothing to leave out
            (("reward.residual=off", "reward.head_gain=1"), "R2M, no residual"),
            (("reward.labels=4",), "R2M, labels"),
            (("reward.labels=4", "reward.omega_min=1"), "RLOO, labels"),
            (("reward.labels=4", "reward.omega_min=1", "algorithm.advantage=grpo"), "GRPO, labels"),
            (("reward.anchor=0.5",), "R2M, anchored"),
            (("reward.anchor=0.5", "reward.labels=4", "task.rrm=0.2"), "R2M, labels, anchored, RRM"),
            (("task.odin=length", "reward.feedback=off"), "RLOO, ODIN"),
            (("task.odin=spaces", "task.rrm=0.2"), "R2M, RRM, ODIN"),
            (("task.rrm=0.2",), "R2M, RRM"),
            (("task.rrm=0.2", "reward.feedback=off"), "RLOO, RRM"),
            (("task.rrm=0.2", "algorithm.advantage=grpo", "reward.alpha=0"), "R2M+GRPO, no GRE, RRM"),
        ],
    )
    def test_names(self, overrides: tuple[str, ...], arm: str) -> None:
        assert load("forum", overrides).arm == arm

    def test_of_a_tree_from_before_the_ablations(self) -> None:
        tree = load("forum").model_dump()
        for key in ("hidden", "train_head", "omega_schedule"):
            del tree["reward"][key]
        assert arm_of(tree) == "R2M"

    def test_every_estimator_has_a_name_and_a_function(self) -> None:
        settings = set(get_args(Algorithm.model_fields["advantage"].annotation))
        assert settings == ESTIMATORS.keys() == ADVANTAGES.keys()


class TestRecipes:
    def test_there_are_these(self) -> None:
        assert set(recipes()) == PAPER | ADAPTERS | {"forum", "smollm2_tldr", "smollm2_tldr_small"}

    @pytest.mark.parametrize("name", sorted(PAPER))
    def test_section_5(self, name: str) -> None:
        c = load(name)
        assert (c.reward.lr, c.reward.alpha, c.reward.attention_width) == (1e-6, 0.5, 2048)
        assert c.reward.feedback

    @pytest.mark.parametrize(
        ("name", "policy", "lr", "omega_min", "K", "rounds", "queries_in_all"),
        [
            ("ultrafeedback_qwen2p5_3b", "Qwen/Qwen2.5-3B-Instruct", 6e-6, 0.0, 4, 24, 3072),  # "3k queries"
            ("ultrafeedback_llama3_8b", "meta-llama/Meta-Llama-3-8B-Instruct", 1e-6, 0.5, 32, 3, 384),  # "0.375k"
        ],
    )
    def test_dialogue_f2(
        self, name: str, policy: str, lr: float, omega_min: float, K: int, rounds: int, queries_in_all: int
    ) -> None:
        c = load(name)
        a = c.algorithm
        assert (c.policy.model, c.reward.model) == (policy, "Skywork/Skywork-Reward-V2-Llama-3.1-8B")
        assert (a.lr, c.reward.omega_min, a.responses, a.queries) == (lr, omega_min, K, 128)
        assert (a.temperature, a.epochs, a.max_response_tokens) == (0.7, 2, 512)
        assert c.task.kind == "text"
        assert c.task.max_chosen_tokens == 512
        assert (a.total_rounds, a.total_rounds * a.queries) == (rounds, queries_in_all)
        assert a.total_rounds * a.queries * a.responses == a.trajectories == 12 * 1024
        assert a.total_rounds * a.epochs * a.minibatches >= 240  # the training steps of F.1

    @pytest.mark.parametrize("size", ["1b", "2p8b"])
    def test_summarisation_f3(self, size: str) -> None:
        c = load(f"tldr_pythia_{size}")
        a = c.algorithm
        hub_size = size.replace("p", ".")
        assert c.policy.model == f"cleanrl/EleutherAI_pythia-{hub_size}-deduped__sft__tldr"
        assert c.reward.model == f"cleanrl/EleutherAI_pythia-{hub_size}-deduped__reward__tldr"
        assert c.task.kind == "text"
        assert c.task.data == "trl-lib/tldr"
        assert (a.queries, a.responses, a.trajectories, a.max_response_tokens) == (2048, 4, 1_000_000, 50)
        assert (a.lr, c.reward.omega_min, a.total_rounds) == (3e-6, 0.0, 122)
        # Where the paper is silent: the TL;DR reproduction.
        assert (a.temperature, a.beta, a.clip_low, a.clip_high) == (0.7, 0.05, 0.2, 0.2)
        assert (a.adam_eps, a.lr_decay, c.task.max_prompt_tokens) == (1e-5, "linear", 512)
        assert a.queries * a.responses // a.minibatches == 512
        assert (c.reward.no_eos, c.reward.no_eos_value) == ("replace", -1.0)

    def test_the_pythia_cases_differ_in_their_models_alone(self) -> None:
        small, large = (load(f"tldr_pythia_{size}").model_dump() for size in ("1b", "2p8b"))
        for tree in (small, large):
            del tree["recipe"], tree["policy"]["model"], tree["reward"]["model"]
            del tree["algorithm"]["microbatch"], tree["algorithm"]["sample_batch"]  # memory, not the result
            del tree["policy"]["sharding"], tree["run"]["workers"]
        assert small == large

    def test_smollm2_in_small_is_smaller_and_else_the_same(self) -> None:
        small, whole = (load(f"smollm2_tldr{end}") for end in ("_small", ""))
        a = small.algorithm
        assert a.total_rounds * a.queries * a.responses <= 16
        assert a.max_response_tokens <= 24
        assert (a.lr, a.temperature, a.beta) == (
            whole.algorithm.lr,
            whole.algorithm.temperature,
            whole.algorithm.beta,
        )
        assert (small.policy, small.reward.model, small.reward.alpha) == (
            whole.policy,
            whole.reward.model,
            whole.reward.alpha,
        )
        assert small.task.kind == whole.task.kind == "text"
        assert (small.task.data, small.task.instruction) == (whole.task.data, whole.task.instruction)

    @pytest.mark.parametrize("name", sorted(PAPER | ADAPTERS | {"smollm2_tldr", "smollm2_tldr_small"}))
    def test_every_value_has_a_source(self, name: str) -> None:
        """A comment on each line of a value, or on the line that opens a pair; sizes of memory need none."""
        lines = (resources.files("r2m.recipes") / f"{name}.yaml").read_text().splitlines()
        free = ("kind", "name", "model", "as_chat", "clip_high", "no_eos_value", "microbatch", "sample_batch",
                "device", "hidden_on_host", "checkpoint_every", "eval_every", "samples",
                "gpus", "memory", "sharding", "offload", "workers", "lora")  # fmt: skip
        for line in lines:
            key = line.strip().split(":")[0]
            if line.startswith("  ") and key not in free:
                assert re.search(r"# .*(F\.\d|Sec\. 5|here|small|bfloat16 values)", line), line

    @pytest.mark.parametrize("name", sorted(PAPER | ADAPTERS | {"forum", "smollm2_tldr", "smollm2_tldr_small"}))
    def test_it_reloads_as_it_is_written_to_a_run(self, name: str, tmp_path: Path) -> None:
        c: Config = load(name)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(c.model_dump(mode="json")))
        assert load(str(path)) == c


class TestScale:
    """Settings of how a policy is held and sampled."""

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("policy.sharding=zero4", r"^policy.sharding = 'zero4': input should be 'none', 'zero1', 'zero2' or"),
            ("policy.offload=all", r"^policy: offload = 'all' needs sharding=zero3 \(it is 'none'\)$"),
            ("policy.offload=optimizer", r"^policy: offload = 'optimizer' needs sharding=zero1 or sharding=zero2 or"),
            ("policy.lora.ranks=4", r"^policy.lora.ranks: unknown key; allowed: rank, alpha, targets"),
            ("policy.lora.rank=0", r"^policy.lora.rank = 0: input should be greater than or equal to 1$"),
            ("policy.lora.targets=[]", r"^policy.lora.targets = \[\]: "),
            ("policy.lora.targets=5", r"^policy.lora.targets = 5: "),
            ("rollout.gpus=1", r"^rollout.gpus = 1: GPUs of rollout.engine=vllm \(it is 'own'\)"),
            ("rollout.memory=0", r"^rollout.memory = 0: input should be greater than 0$"),
            ("algorithm.sampler_cap=0", r"^algorithm.sampler_cap = 0: input should be greater than 0$"),
        ],
    )
    def test_refused(self, override: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            load("forum", [override])

    def test_engines_of_unequal_parts(self) -> None:
        with pytest.raises(UserError, match=r"^rollout.gpus = 3: .* a multiple of run.workers = 2"):
            load("forum", ["rollout.engine=vllm", "rollout.gpus=3", "run.workers=2"])

    def test_a_section_that_is_off_is_on_with_a_setting_of_its_own(self) -> None:
        assert load("forum").policy.lora is None
        assert load("forum", ["policy.lora=null"]).policy.lora is None
        lora = load("forum", ["policy.lora=null", "policy.lora.rank=8", "policy.lora.targets=q_proj"]).policy.lora
        assert lora is not None
        assert (lora.rank, lora.alpha, lora.targets) == (8, 32.0, ("q_proj",))


class TestStrict:
    """What YAML or pydantic would let through."""

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("algorithm.lr=true", r"^algorithm.lr = True: input should be a number, not true or false$"),
            ("algorithm.queries=on", r"^algorithm.queries = True: "),
            ("run.seed=no", r"^run.seed = False: "),
            ("algorithm.queries=" + "9" * 30, r"less than or equal to 2147483647$"),
            ("run.seed=4294967296", r"^run.seed = 4294967296: .*4294967295$"),
            ("algorithm.queries=" + "9" * 90, r"less than or equal to 2147483647$"),
            ("algorithm.queries=" + "9" * 5000, r"'9{49}\.\.\.9{24}' is not a YAML value"),
            ("algorithm.queries=0x" + "f" * 5000, r"^algorithm.queries = a int too large to show: "),
            ("algorithm.temperature=1.0e-300", r"^algorithm.temperature = 1e-300: "),
            ("algorithm.temperature=1e-4", r"^algorithm.temperature = '1e-4': .*greater than or equal to 0.001$"),
            ("algorithm.lr=1.0e-300", r"^algorithm.lr = 1e-300: .* of a size from 1e-30 to 1e30$"),
            ("reward.no_eos_value=1.0e+300", r"^reward.no_eos_value = 1e\+300: "),
            ("run.seed=2024-01-01", r"^run.seed = '2024-01-01': input should be a valid integer"),
            ("recipe=", r"^--set 'recipe=': no value; null is none"),
            ("policy.model= ", r"^--set 'policy.model= ': no value"),
            ("recipe=null", r"^recipe = None: "),
            ("run.seed=1:30", r"^run.seed = '1:30': "),
            ("algorithm.lr=1:30.5", r"^algorithm.lr = '1:30.5': "),
            ("recipe=''", r"^recipe = '': "),
            ("run.storage=''", r"^run.storage = '': input should be a name"),
            ("run.storage=' '", r"^run.storage = ' ': input should be a name"),
            ("policy.model=''", r"^policy.model = '': input should be a name"),
            ('policy.model="a\\0b"', r"^policy.model = 'a\\x00b': input should be a name"),
            ("run.storage=" + "a" * 256, r"^run.storage = 'a+\.\.\.a+': no name of a file may be longer"),
            ("run.storage=" + "a/" * 2000, r"no path than 3000$"),
            ("algorithm={lr: 1, lr: 2}", r"lr: given twice, line 1"),
            ("algorithm=[1", r"^--set algorithm: '\[1' is not a YAML value"),
            ("algorithm=&a [*a]", r"an alias stands inside of what it stands for"),
            ("algorithm=" + "[" * 40 + "]" * 40, r"nested more than 30 deep"),
            ("run.workers=2\nrun.seed=1", r"^run.workers = '2 run.seed=1': "),
            ("task.posts=1000000000", r"^task.posts = 1000000000: "),
        ],
    )
    def test_override(self, override: str, message: str) -> None:
        with pytest.raises(UserError) as error:
            load("forum", [override])
        text = str(error.value)
        assert re.search(message, text), text
        assert text.isprintable()
        assert len(text) < 600

    @pytest.mark.parametrize(
        ("written", "seed"),
        [("010", 10), ("0", 0), ("-0", 0), ("0x10", 16), ("1_000", 1000), ("7.0", 7), ("'010'", 10), ("09", 9)],
    )
    def test_numbers_are_decimal(self, written: str, seed: int) -> None:
        assert load("forum", [f"run.seed={written}"]).run.seed == seed

    def test_a_pipe_is_no_recipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.yaml")
        (tmp_path / "zeros.yaml").symlink_to("/dev/zero")
        for name in ("pipe.yaml", "zeros.yaml"):
            with pytest.raises(UserError, match="no such file"):
                load(str(tmp_path / name))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("task: {kind: forum}\ntask: {kind: text}\n", r"not valid YAML \(task: given twice, line 2\)"),
            ("task:\n  kind: forum\n  seed: 1\n  seed: 2\n", r"\(seed: given twice, line 4\)"),
            ("[" * 100_000, "nested more than 30 deep"),
            ("#" * 2**19, "524,288 characters; at most 262,144 are allowed"),
            ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ],
    )
    def test_file(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            load(str(tmp_path / "mine.yaml"))

    def test_aliases_are_counted_as_what_they_stand_for(self, tmp_path: Path) -> None:
        """Nine lists of nine: 9^9 values in 300 characters. And the same with a little is an alias as any."""
        lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(9)]
        with pytest.raises(UserError, match="more than 20,000 values"):
            load("forum", ["colour={" + ", ".join(lists) + "}"])
        (tmp_path / "mine.yaml").write_text(
            "task: {kind: forum}\nalgorithm: {rounds: 2}\n"
            "policy: &same {dtype: bfloat16}\nreward: {<<: *same, alpha: 1}"
        )
        c = load(str(tmp_path / "mine.yaml"))
        assert (c.policy.dtype, c.reward.dtype, c.reward.alpha) == ("bfloat16", "bfloat16", 1)

    def test_it_evaluates_on_as_many_prompts_as_there_are(self) -> None:
        c = load("forum", ["run.eval_queries=1000000000", "task.held_out=12"])
        assert c.run.eval_queries == 12
        assert load("forum").run.eval_queries == 64

    @pytest.mark.parametrize("few", ["task.held_out=1", "run.eval_queries=1"])
    def test_a_worker_needs_a_prompt_to_evaluate(self, few: str) -> None:
        with pytest.raises(UserError, match=r"^run.workers = 2: each evaluates at least one held-out prompt"):
            load("forum", ["run.workers=2", few])
        assert load("forum", ["run.workers=2", few, "run.eval_every=0"]).run.workers == 2


class TestTrackingUri:
    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("ftp://host", "http://, https://, sqlite://"),
            ("mlruns", "a folder is not"),
            ("''", "a folder is not"),
            ("http://[::1", "no address"),
            ("http://host:port", "no address"),
            ("http://", "HOST"),
            ("http://user:hunter2@host", r"http://\*\*\*@host: a user or password here would be logged"),
            ("http://hunter2@host", r"http://\*\*\*@host: "),
            ("https://host/mlflow?token=hunter2", r"https://host/mlflow\?\*\*\*: a secret here would be logged"),
            ("postgresql://host/db?sslmode=x&password=hunter2", r"db\?\*\*\*: a secret"),
            ("http://host?x=hunter2", "without anything behind it"),
            ("sqlite://", "sqlite:///FILE"),
            ("'sqlite:///:memory:'", "sqlite:///FILE"),
            ("sqlite:///a?b.db", "sqlite:///FILE"),
        ],
    )
    def test_refused_and_no_secret_shown(self, uri: str, message: str) -> None:
        with pytest.raises(UserError, match=f"^run.tracking_uri: .*{message}") as error:
            load("forum", [f"run.tracking_uri={uri}"])
        assert "hunter2" not in str(error.value)

    @pytest.mark.parametrize(
        "url", ["ftp://host/v1", "host/v1", "http://", "http://me:hunter2@host/v1", "http://host/v1?key=hunter2",
                "http://host/v1#hunter2", "http://host:port/v1", "http://host/v1/chat/completions"],
    )  # fmt: skip
    def test_a_judge_has_no_secret_in_its_address(self, url: str) -> None:
        with pytest.raises(UserError, match=r"^run\.judge_url: http\[s\]://HOST") as error:
            load("forum", [f"run.judge_url='{url}'", "run.judge_model=m"])
        assert "hunter2" not in str(error.value)

    def test_a_judges_settings_go_together(self) -> None:
        url, model = "run.judge_url=https://host/v1", "run.judge_model=m"
        assert load("forum", [url, model, "run.judge_key_env=A_KEY"]).run.judge_model == "m"
        for settings, message in (
            ([url], "give both or none"),
            ([model], "give both or none"),
            ([url, model, "run.judge=some/model"], "give one of the two"),
            (["run.judge_key_env=A_KEY"], "needs judge_url"),
        ):
            with pytest.raises(UserError, match=f"^run: .*{message}"):
                load("forum", settings)
        with pytest.raises(UserError, match=r"^run\.judge_key_env: .*not the key") as error:
            load("forum", [url, model, "run.judge_key_env=sk-hunter2"])
        assert "hunter2" not in str(error.value)

    @pytest.mark.parametrize(
        "uri",
        ["http://127.0.0.1:5000", "https://host/mlflow", "postgresql://host/db", "databricks", "http://[::1]:5000"],
    )
    def test_allowed(self, uri: str) -> None:
        assert load("forum", [f"run.tracking_uri={uri}"]).run.tracking_uri == uri

    def test_a_file_is_relative_to_the_folder_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert load("forum", ["run.tracking_uri=sqlite:///x.db"]).run.tracking_uri == f"sqlite:///{tmp_path}/x.db"

    @pytest.mark.parametrize(
        "name", ["plain", "a%20b", "a#b", "a?b", "a b", "~", "a'b\"c", "ü+@[x]", "a:b;c&d=e", "100%"]
    )
    def test_there_and_back(self, name: str) -> None:
        """SQLAlchemy reads the same path out of it."""
        path = Path(f"/storage/{name}/mlflow.db")
        uri = sqlite_uri(path)
        assert make_url(uri).database == str(path)
        assert sqlite_path(uri) == path
        assert check_uri(uri) == uri


class TestPaths:
    """Relative to the folder in which a command is typed, whichever file or option they are in."""

    TEXT = MINIMAL | {
        "task": {"kind": "text", "data": "rows.jsonl"},
        "policy": {"model": "models/policy"},
        "reward": {"model": "reward"},
        "run": {"judge": "./judge", "storage": "~/runs"},
    }

    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        here = tmp_path / "here"
        for name in ("models/policy", "reward", "judge"):
            (here / name).mkdir(parents=True)
        (here / "rows.jsonl").touch()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "text.yaml").write_text(yaml.safe_dump(self.TEXT))
        monkeypatch.chdir(here)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        return here

    def test_of_a_recipe_in_another_folder(self, here: Path) -> None:
        c = load("../elsewhere/text.yaml")
        assert (c.policy.model, c.reward.model) == (f"{here}/models/policy", f"{here}/reward")
        assert (c.run.judge, c.run.storage) == (f"{here}/judge", f"{here.parent}/home/runs")
        assert c.task.kind == "text"
        assert c.task.data == f"{here}/rows.jsonl"
        check_places(c)
        assert load("../elsewhere/text.yaml", ["run.storage=runs"]).run.storage == f"{here}/runs"

    def test_of_a_recipe_of_ours(self, here: Path) -> None:
        (here / "models" / "smollm2-135m").mkdir()
        c = load("smollm2_tldr")
        assert (c.policy.model, c.reward.model) == (f"{here}/models/smollm2-135m", "models/smollm2-135m-reward")

    def test_what_is_kept_means_the_same_in_any_folder(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        c = load("../elsewhere/text.yaml")
        (here / "kept.yaml").write_text(yaml.safe_dump(c.model_dump(mode="json")))
        monkeypatch.chdir("/")
        assert load(str(here / "kept.yaml")) == c

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("reward", "/reward"), ("./none", "/none"), ("none/", "/none"), ("a/b/c", "/a/b/c"), ("-x", "/-x"),
            ("none", None), ("org/none", None), ("org/none-1.5B_x", None), ("org/data.jsonl", None),
        ],
    )  # fmt: skip
    def test_a_path_or_an_id(self, here: Path, name: str, place: str | None) -> None:
        c = load("forum", [f"policy.model={name}"])
        assert c.policy.model == (name if place is None else f"{here}{place}")

    @pytest.mark.parametrize(
        "data", ["none.jsonl", "none.JSONL", "org/none.parquet", "x.json.gz", "./none", "none.csv"]
    )
    def test_data_that_must_be_there(self, here: Path, data: str) -> None:
        c = load("../elsewhere/text.yaml", [f"task.data={data}"])
        with pytest.raises(UserError, match=r"^task.data = '/.*': no such file$"):
            check_places(c)

    def test_data_on_the_hub(self, here: Path) -> None:
        c = load("../elsewhere/text.yaml", ["task.data=trl-lib/tldr"])
        assert setting(c, "task.data") == "trl-lib/tldr"
        check_places(c)

    @pytest.mark.parametrize("key", ["policy.model", "reward.model", "run.judge"])
    def test_models_that_must_be_there(self, here: Path, key: str) -> None:
        for name in ("./none", "~/none", "rows.jsonl", "none/"):
            with pytest.raises(
                UserError, match=rf"^{key} = '/.*': no such folder; .* relative to the folder in which"
            ):
                check_places(load("../elsewhere/text.yaml", [f"{key}={name}"]))

    def test_a_storage_that_cannot_be(self, here: Path) -> None:
        for storage in (here / "rows.jsonl", here / "rows.jsonl" / "inside"):
            with pytest.raises(UserError, match=r"rows.jsonl is no folder$"):
                check_storage_folder(str(storage))
        check_storage_folder(str(here / "new" / "runs"))
        assert not (here / "new").exists()


class TestUserError:
    def test_one_printable_line(self) -> None:
        assert str(UserError("a\nb\t\x1b[31m\u202e c\udc80")) == r"a b \x1b[31m\u202e c\udc80"
        assert len(str(UserError("x" * 10**6))) == 2000

    def test_values_are_cut(self) -> None:
        assert shown("short") == "'short'"
        assert shown(10**400) == f"1{'0' * 49}...{'0' * 25}"
        assert shown(16**5000) == "a int too large to show"
        loop: list[object] = []
        loop.append(loop)
        assert shown(loop) == "[[...]]"


class TestBase:
    def test_changes_come_on_top_and_the_overrides_on_top_of_them(self, tmp_path: Path) -> None:
        file = tmp_path / "changed.yaml"
        file.write_text("base: forum\nalgorithm: {lr: 0.5, queries: 4}\npolicy: {lora: {rank: 3}}\n")
        changed, forum = load(str(file), ["algorithm.queries=8"]), load("forum")
        assert changed.recipe == "changed"
        assert (changed.algorithm.lr, changed.algorithm.queries) == (0.5, 8)
        assert changed.policy.lora is not None
        same = {"algorithm": changed.algorithm, "policy": changed.policy, "recipe": "changed"}
        assert forum.model_copy(update=same) == changed

    @pytest.mark.parametrize("base", ["nowhere", "ultrafeedback_llama3_8b_lora", "[forum]", "null", "3", "own.yaml"])
    def test_a_base_is_a_whole_recipe_of_ours(self, tmp_path: Path, base: str) -> None:
        file = tmp_path / "changed.yaml"
        file.write_text(f"base: {base}\n")
        with pytest.raises(UserError, match=r"^recipe = .*: base = .*: one of forum, .* is allowed$"):
            load(str(file))
