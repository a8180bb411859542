"""What a run trains on: the sections of the settings that are tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r2m.config.types import Count, Name, Place, PlainText, RowCount, Seed, Share


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ForumTask(Section):
    """The embedded task: a miniature of the paper's Pythia-1B case (App. F.5), made from a seed."""

    kind: Literal["forum"] = "forum"
    seed: Seed = 0  # of grammar, models and preference data; a run's own is run.seed
    posts: RowCount = 4000  # training prompts; the SFT data is on them too
    held_out: RowCount = 256  # evaluation prompts, never trained on
    sft_noise: Share = 0.3  # chance that a word of a reference summary is corrupted
    sft_steps: Count = 300
    label_noise: Share = 0.05  # chance that gold's verdict on a pair is flipped
    artefact: Share = 0.25  # share of pairs whose preferred answer lost spaces after gold's verdict
    space_pairs: Share = 0.0  # share of pairs in which either answer lost spaces before it: gold minds them
    preference_pairs: Annotated[RowCount, Field(ge=50)] = 7400  # before ties are left out
    reward_epochs: Count = 1
    rrm: Share = 0.0  # of the 14 pairs, mixed across prompts, to each preference pair: Liu et al., 2024; 1: all
    odin: Literal["none", "length", "spaces"] = "none"  # what a second head takes off the score: Chen et al., 2024
    reward_width: Annotated[Count, Field(ge=8, multiple_of=8)] = 128  # of the reward model, as the policy's

    @model_validator(mode="after")
    def _shares_fit(self) -> ForumTask:
        if self.artefact + self.space_pairs > 1:
            raise ValueError(
                f"artefact = {self.artefact} and space_pairs = {self.space_pairs} are shares of the same pairs: "
                "their sum must be at most 1"
            )
        return self


class TextTask(Section):
    """Prompts from a Hugging Face data set id or a local file, as r2m.tasks.files reads it."""

    kind: Literal["text"] = "text"
    name: Annotated[Name, Field(pattern=r"^[\w.-]+$", max_length=100)] = "text"  # names the MLflow experiment
    data: Place
    split: Name = "train"
    prompt_column: Name = "prompt"
    instruction: PlainText | None = None  # put before a plain prompt
    as_chat: bool = False  # wrap a plain prompt as a user's message and apply the chat template
    max_prompt_tokens: Count | None = None  # longer prompts are left out (and counted)
    max_chosen_tokens: Count | None = None  # F.2: leave out rows whose chosen response is longer
    limit: Count | None = None
    held_out: Count = 64  # rows taken off the end for evaluation
