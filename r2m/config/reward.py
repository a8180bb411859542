"""The section of the reward model, and of what is added to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r2m.config.tasks import Section
from r2m.config.types import Count, Int, Number, Place, Positive, Share, Whole


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
    shaping: Literal["none", "par"] = "none"  # par: chance to be preferred to the reference's: Fu et al., 2025
    par_references: Count = 1  # M, of the reference policy to each prompt; the paper's finding, its script has 10
    length_penalty: Annotated[Number, Field(ge=0)] = 0.0  # off the score for each response token beyond length_free
    length_free: Whole = 0  # tokens
    # b: off the score, for last-layer features that are far from training's; of each response by itself, or along
    # the direction in which the policy has left the reference: Zhang et al., 2024
    uncertainty: Annotated[Number, Field(ge=0)] = 0.0
    uncertainty_form: Literal["response", "advpo"] = "response"
    # of reward.model and its members: mean, worst case, mean less λ variance: Coste et al., 2023; averaged weights:
    # Ramé et al., 2024
    ensemble: Literal["none", "mean", "min", "uwo", "warm"] = "none"
    members: Annotated[Int, Field(ge=2, le=100)] | tuple[Place, ...] = 5  # so many in all of the task's own, or the
    # further ones where reward.model is named; Coste et al., 2023
    members_differ: Literal["data", "init", "sft"] = "init"  # in order of data, score layer's draw, supervised start
    uwo_lambda: Annotated[Number, Field(ge=0)] = 0.1  # Coste et al., 2023, for PPO

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

    @model_validator(mode="after")
    def _noise_is_an_ablation(self) -> Reward:
        if self.feedback and self.hidden == "noise" and self.reshaped:
            raise ValueError(
                f"hidden = 'noise': the ablation is of R2M alone, without {' or '.join(self.reshaped)}; "
                "hidden=policy or feedback=off is allowed"
            )
        return self

    @model_validator(mode="after")
    def _members_fit(self) -> Reward:
        if self.ensemble == "none":
            return self
        if self.feedback:
            raise ValueError(
                f"ensemble = {self.ensemble!r}: R2M's head reads the embedding of one reward model; feedback=off or "
                "ensemble=none is allowed"
            )
        if self.model is not None and (isinstance(self.members, int) or not self.members):
            raise ValueError(
                f"ensemble = {self.ensemble!r} with model = {self.model!r}: name the further reward models by members"
            )
        if self.ensemble == "warm" and self.members_differ == "sft" and self.model is None:
            raise ValueError(
                "ensemble = 'warm' with members_differ = 'sft': weights from starts that were trained apart have no "
                "average of use; data or init is allowed"
            )
        return self

    @model_validator(mode="after")
    def _uncertainty_fits(self) -> Reward:
        if self.uncertainty and self.ensemble != "none":
            raise ValueError(
                f"uncertainty = {self.uncertainty}: the features are of one reward model; ensemble=none is allowed"
            )
        if self.uncertainty and self.uncertainty_form == "advpo" and self.shaping != "none":
            raise ValueError(
                f"uncertainty_form = 'advpo' with shaping = {self.shaping!r}: either compares with the reference, by "
                "the round and by the prompt; uncertainty_form=response or shaping=none is allowed"
            )
        return self

    @property
    def reshaped(self) -> list[str]:
        """The settings by which scores are reshaped or penalised before they train the policy."""
        set_ = {
            "ensemble": self.ensemble != "none",
            "uncertainty": self.uncertainty > 0,
            "shaping": self.shaping != "none",
            "length_penalty": self.length_penalty > 0,
        }
        return [name for name, is_set in set_.items() if is_set]
