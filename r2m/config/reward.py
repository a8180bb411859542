"""The section of the reward model, and of what is added to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r2m.config.tasks import Section
from r2m.config.types import Count, Number, Place, Positive, Share, Whole


class Reward(Section):
    """The reward model, and what R2M adds to it."""

    model: Place | None = None  # hub id or local folder; null: the task's own reward model
    dtype: Literal["float32", "bfloat16"] = "float32"
    feedback: bool = True  # off: the vanilla reward model, plain RLOO
    hidden: Literal["policy", "noise"] = "policy"  # noise: Gaussian in the feedback's place; Table 5, Fig. 4
    train_head: bool = True  # off: feedback by an untrained head; Table 5
    residual: bool = True  # Ĥ = H + CrossAttention(H, h); off: CrossAttention(H, h) alone, as Sec. 4.1 may be read
    head_gain: Annotated[Number, Field(ge=0)] = 0.02  # here: the untrained attention's output, of the usual scale
    omega_min: Share = 0.0  # Ω of Eq. 3; F.2, F.3
    omega_schedule: Literal["cosine", "constant"] = "cosine"  # Eq. 3; constant: Ω from the start
    alpha: Share = 0.5  # Eq. 6; Sec. 5. 0: no GRE, 1: no BT; Table 5
    lr: Positive = 1e-6  # of the head; Sec. 5
    attention_width: Count = 2048  # Sec. 5
    num_heads: Count = 16  # here: heads of 128
    epochs: Count = 1  # passes over the round's groups
    minibatches: Count = 1  # optimiser steps a pass
    labels: Whole = 0  # groups a round whose best and worst run.judge names, else gold: the head learns from these
    anchor: Share = 0.0  # of the head's loss, on as many original preference pairs a round as there are queries; here
    anchor_data: Place | None = None  # these pairs; null: those kept beside the task's own reward model
    no_eos: Literal["keep", "replace", "subtract"] = "replace"  # score of a response without EOS; checklist
    no_eos_value: Number = -1.0  # replace: the score; subtract: its absolute value comes off

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Reward:
        if self.attention_width % self.num_heads:
            width = self.attention_width
            raise ValueError(f"num_heads = {self.num_heads} must divide attention_width = {width}")
        return self

    @model_validator(mode="after")
    def _somebody_learns(self) -> Reward:
        """What the rivals teach needs a head that learns it."""
        if self.labels and not (self.feedback and self.train_head and self.alpha < 1):
            raise ValueError(
                f"labels = {self.labels} teach a head an order: feedback=on, train_head=on and alpha < 1 are needed "
                "(omega_min=1 leaves of the head the reward model's own score layer: RLOO with labels)"
            )
        if self.anchor and not (self.feedback and self.train_head and self.hidden == "policy"):
            raise ValueError(
                f"anchor = {self.anchor:g} is a share of the loss of a head that reads the policy: feedback=on, "
                "train_head=on and hidden=policy are needed"
            )
        return self
