"""Settings: YAML recipes in, dotted overrides on top, one frozen and validated tree out.

schema  the tree    types  of its values    load  recipes, overrides, absolute paths    explain  mistakes in one line
"""

from r2m.config.arms import ESTIMATORS as ESTIMATORS
from r2m.config.arms import arm_of as arm_of
from r2m.config.arms import tags_of as tags_of
from r2m.config.explain import explain as explain
from r2m.config.load import load as load
from r2m.config.load import override as override
from r2m.config.load import recipes as recipes
from r2m.config.load import validate as validate
from r2m.config.schema import Algorithm as Algorithm
from r2m.config.schema import Config as Config
from r2m.config.schema import ForumTask as ForumTask
from r2m.config.schema import Policy as Policy
from r2m.config.schema import Reward as Reward
from r2m.config.schema import Run as Run
from r2m.config.schema import Section as Section
from r2m.config.schema import TextTask as TextTask
from r2m.config.schema import digest as digest
from r2m.config.types import Count as Count
from r2m.config.types import Int as Int
from r2m.config.types import Number as Number
from r2m.config.types import Positive as Positive
from r2m.config.types import Seed as Seed
from r2m.config.types import Share as Share
from r2m.config.types import Whole as Whole
