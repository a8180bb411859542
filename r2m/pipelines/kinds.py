"""The kinds of steps, by the word that a file has for them."""

from r2m.pipelines.steps.compare import ALARM_CHECK, COMPARE
from r2m.pipelines.steps.evaluate import EVALUATE
from r2m.pipelines.steps.papers import PAPER
from r2m.pipelines.steps.promote import PROMOTE
from r2m.pipelines.steps.stages import REWARD_MODEL, SFT
from r2m.pipelines.steps.sweeps import SWEEP
from r2m.pipelines.steps.train import TRAIN
from r2m.pipelines.work import Kind

STEP_KINDS: dict[str, Kind] = {
    "sft": SFT,
    "reward-model": REWARD_MODEL,
    "train": TRAIN,
    "sweep": SWEEP,
    "evaluate": EVALUATE,
    "compare": COMPARE,
    "paper": PAPER,
    "alarm-check": ALARM_CHECK,
    "promote": PROMOTE,
}
