"""What a run takes of a worker's memory, part by part, by arithmetic.

Letters: n queries of a worker and K responses a round, P prompt and R response tokens, B trajectories, D width,
V vocabulary. Sizes are bytes of one worker; `item` is that of a value that the policy computes with.
"""

from dataclasses import dataclass

from r2m.config import Config, Policy
from r2m.errors import UserError
from r2m.files import GIB
from r2m.limits import BUCKET, LOGITS, LOGITS_RECOMPUTED, PACKED
from r2m.models.families import CacheUse
from r2m.training.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2}
FP32, ADAM = 4, 8  # bytes of a value: masters and gradients are fp32; AdamW has two states
GATHERED = 10**9  # weights that ZeRO-3 keeps gathered between a forward and its backward: DeepSpeed's default
LIBRARIES = int(0.5 * GIB)  # measured (480 MiB): what imports of torch, transformers and this package hold
PROCESS = int(0.6 * GIB)  # measured: with Ray's beside them
CUDA = int(0.5 * GIB)  # of a GPU, for a process's context and kernels: estimated


@dataclass(frozen=True)
class Memory:
    held: dict[str, int]  # on the device, through the run
    phases: dict[str, int]  # on the device in turn, on top of it; estimated
    host: dict[str, int]  # beside a GPU, in host memory
    gradients: int  # on the device in the policy's update: certain, and part of that phase


def trained_parameters(policy: Policy, shape: Shape) -> int:
    """All, or those of adapters: r (inputs + outputs) of each layer that has one."""
    if policy.lora is None:
        return shape.parameters
    targets = {target.rpartition(".")[2] for target in policy.lora.targets}
    sizes = [size for name, size in shape.linear if name in targets or "all-linear" in targets]
    return policy.lora.rank * sum(sizes)


def memory(config: Config, policy: Shape, reward: Shape, P: int, device: str, device_gib: float | None) -> Memory:
    """Of one worker on a `cpu` or `gpu`, prompts being P tokens at most.

    Raises UserError, with the arithmetic, for hidden states over run.hidden_budget_gib.
    """
    p, r, a, w = config.policy, config.reward, config.algorithm, config.run.workers
    item, trained = BYTES[p.dtype], trained_parameters(p, policy)
    stage = 0 if p.sharding == "none" else int(p.sharding[-1])
    if stage == 1 and item == 2:
        stage = 2  # r2m.policy.zero's
    over = w if stage == 3 else 1  # workers that a model's weights are divided by
    policy_weights = (policy.parameters + (trained if p.lora else 0)) * item
    reward_weights = reward.parameters * BYTES[r.dtype]
    weights = {"policy weights": policy_weights // over}
    states = {"AdamW states": ADAM * trained // (w if stage else 1)}
    if stage or item == 2:
        states = {"fp32 weights": FP32 * trained // (w if stage else 1)} | states
    frozen = {} if p.lora else {"reference": policy.parameters * item // over}
    frozen["reward model"] = reward_weights // over
    if r.ensemble != "none":
        frozen["ensemble"] = scoring_models(config) * reward_weights // over - frozen["reward model"]
    if r.uncertainty:
        frozen["training features"] = FP32 * reward.width**2
    gradients = FP32 * trained // (w if stage >= 2 else 1)
    if stage == 1:
        gradients += FP32 * trained // w  # this worker's part, in one piece for its step
    host: dict[str, int] = {}
    if stage == 3:  # a buffer that is there throughout
        states, gradients = states | {"gradients": gradients}, 0
    if device == "gpu":
        if p.offload != "none":
            host, states = states | {"gradients": gradients or states.get("gradients", 0)}, {}
            gradients = 0
        if p.offload == "all":
            host, weights, frozen = weights | frozen | host, {}, {}
    held = weights | states | frozen
    gathered = min(policy.parameters, GATHERED) * item if stage == 3 else 0
    update = gradients + gathered + microbatch_bytes(config, policy, a.microbatch, P, item)
    update += _in_the_making(config, policy, trained, item, stage)
    if stage:
        # Gradients of several weights in one piece, and at stages 2 and 3 another copy of it, on its way.
        held["ZeRO's buffers"] = min(BUCKET, trained) * (item if stage == 3 else FP32) * (2 if stage > 1 else 1)
    phases = {"policy update": update}
    if config.rollout.engine == "own":
        phases["sampling"] = _sampling(config, policy, P, device, stage)
    elif not config.rollout.gpus:
        phases["sampling by vLLM"] = int(config.rollout.memory * (device_gib or 0) * GIB)
        host["vLLM's weights, asleep"] = policy.parameters * item
    if stage == 3:
        phases["whole models, to be saved"] = max(policy.parameters * item, reward_weights)
    if r.feedback:
        head = head_parameters(config, policy, reward)
        held |= {"feedback head, trained": 4 * FP32 * head} if r.train_head else {"feedback head": FP32 * head}
        hidden = {"hidden states": hidden_states(config, policy, P)}
        if config.run.hidden_on_host and device == "gpu":
            host |= hidden
        else:
            held |= hidden
        rows = max(a.microbatch, a.responses) * (P + a.max_response_tokens - 1)
        phases["head microbatch"] = rows * policy.width * (item if item == 4 else item + 4)
    return Memory(held, phases, host, gradients)


def _in_the_making(config: Config, policy: Shape, trained: int, item: int, stage: int) -> int:
    """Gradients that autograd holds beside those that have been added up: of the weights' use in the responses, until
    it comes to their use in the prompts; and a second one of the embedding, which is as large as it."""
    a = config.algorithm
    embedding = 0 if config.policy.lora else policy.vocabulary * policy.width * item
    of_a_step = a.queries // config.run.workers // a.minibatches * a.responses  # trajectories
    first = not stage and item == 4 and of_a_step <= a.microbatch  # these become those that are added up
    if first or policy.cache_use is not CacheUse.SHARED or a.max_response_tokens == 1:
        return embedding
    return trained * item + embedding


def reference_responses(config: Config) -> int:
    """M: the reference policy's responses to a prompt, that PAR or AdvPO compares with."""
    r = config.reward
    compared = r.shaping == "par" or (r.uncertainty > 0 and r.uncertainty_form == "advpo")
    return r.par_references if compared else 0


def scoring_models(config: Config) -> int:
    """Reward models that read every response: an ensemble's; of WARM the averaged one, and the vanilla one."""
    r = config.reward
    if r.ensemble in ("none", "warm"):
        return 1 + (r.ensemble == "warm")
    return r.members if isinstance(r.members, int) else 1 + len(r.members)


def head_parameters(config: Config, policy: Shape, reward: Shape) -> int:
    return 2 * config.reward.attention_width * (reward.width + policy.width) + reward.width + 1


def hidden_states(config: Config, policy: Shape, P: int) -> int:
    """Bytes of n (P + K (R - 1)) D values, as r2m.policy.forward.HiddenStates has them, and as many more for ReMax's
    greedy responses (K = 1), PAR's references (K = M) and as many original pairs (K = 2) as they take; UserError over
    the budget."""
    a, run, item = config.algorithm, config.run, BYTES[config.policy.dtype]
    n, K, R = a.queries // run.workers, a.responses, a.max_response_tokens
    M = config.reward.par_references if config.reward.shaping == "par" else 0
    greedy, others = P + R - 1 if a.advantage == "remax" else 0, P + M * (R - 1) if M else 0
    pair = P + 2 * (R - 1) if config.reward.anchor else 0
    size = n * (P + K * (R - 1) + greedy + others + pair) * policy.width * item
    more = f" + {greedy} of the greedy response" if greedy else ""
    more += f" + {others} of PAR's references" if others else ""
    more += f" + {pair} of an original pair" if pair else ""
    if size > run.hidden_budget_gib * GIB:
        raise UserError(
            f"run.hidden_budget_gib = {run.hidden_budget_gib:g}: a worker's hidden states take "
            f"{n} queries * ({P} prompt + {K} * {R - 1} response tokens{more}) * {policy.width} * {item} bytes = "
            f"{size / GIB:.1f} GiB; raise it (run.hidden_on_host=true keeps them off the GPU) or run.workers"
        )
    return size


def _sampling(config: Config, policy: Shape, P: int, device: str, stage: int) -> int:
    """Keys and values, and states, of B trajectories (or one layer of all their tokens, where nothing is kept), and
    about four fp32 tensors of [B, V]; at ZeRO-3 all weights, and on a CPU a packed copy of fp32 ones."""
    a, item = config.algorithm, BYTES[config.policy.dtype]
    sampled = max(
        a.responses + (a.advantage == "remax"), reference_responses(config)
    )  # responses to a prompt at once
    B = min(max(1, a.sample_batch // sampled), a.queries // config.run.workers) * sampled
    tokens = P + a.max_response_tokens
    kept = B * (tokens * policy.kv_values + policy.state_values)
    if policy.cache_use is CacheUse.RERUN:
        kept = B * tokens * (12 * policy.width + policy.mlp_values)
    whole = policy.parameters * item if stage == 3 else 0
    packed = policy.parameters * item if device == "cpu" and item == 4 and policy.parameters >= PACKED else 0
    return kept * item + 4 * FP32 * B * policy.vocabulary + whole + packed


def microbatch_bytes(config: Config, policy: Shape, B: int, P: int, item: int) -> int:
    """What a forward of B trajectories keeps for its backward: in each layer about 12 D beside the MLP for a token
    that is run, keys and values again for each trajectory that shares them; of each logit the log-prob and its
    gradient in fp32.

    Recomputed: of all layers the inputs and the prompts' keys and values, and the rest of one layer.
    """
    K, R = config.algorithm.responses, config.algorithm.max_response_tokens
    prompts = max(1, B // K) if policy.cache_use is CacheUse.SHARED else B
    run_tokens, read_tokens = prompts * P + B * (R - 1), B * (P + R - 1)
    layer = run_tokens * (12 * policy.width + policy.mlp_values)
    kept, at_once = policy.layers * layer + read_tokens * policy.kv_values, LOGITS
    if config.policy.recompute:
        kept = layer + run_tokens * (policy.layers * policy.width + policy.kv_values)
        kept += read_tokens * policy.kv_values // policy.layers
        at_once = LOGITS_RECOMPUTED
    of_a_logit = 2 * FP32 + (item if item < FP32 else 0)
    return kept * item + of_a_logit * min(B * R * policy.vocabulary, at_once)
