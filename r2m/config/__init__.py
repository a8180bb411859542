"""Settings: YAML recipes in, dotted overrides on top, one frozen and validated tree out.

schema  the tree    tasks, reward  sections of it    types  of values    load  recipes, overrides, absolute paths
newer  what old digests lack    explain  mistakes in one line
"""

from r2m.config.arms import ESTIMATORS, arm_of, tags_of
from r2m.config.explain import explain
from r2m.config.load import load, override, recipes, validate
from r2m.config.newer import as_before
from r2m.config.reward import Reward
from r2m.config.schema import Algorithm, Config, Lora, Policy, Rollout, Run, digest
from r2m.config.tasks import ForumTask, Section, TextTask
from r2m.config.types import Count, Int, Number, Positive, Seed, Share, Whole
