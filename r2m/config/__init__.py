"""Settings: YAML recipes in, dotted overrides on top, one frozen and validated tree out.

schema  the tree    tasks  what is trained on    types  of values    load  recipes, overrides, absolute paths
explain  mistakes in one line
"""

from r2m.config.arms import ESTIMATORS, arm_of, tags_of
from r2m.config.explain import explain
from r2m.config.load import load, override, recipes, validate
from r2m.config.schema import Algorithm, Config, Lora, Policy, Reward, Rollout, Run, digest
from r2m.config.tasks import ForumTask, Section, TextTask
from r2m.config.types import Count, Int, Number, Positive, Seed, Share, Whole
