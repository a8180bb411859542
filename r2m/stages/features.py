"""The training features of the embedded task's own reward model, worked out when a run first asks for them."""

from pathlib import Path

from r2m.config import ForumTask
from r2m.models.loading import load_tokenizer
from r2m.reward.features import save_features, second_moment
from r2m.reward.inputs import response_ids
from r2m.reward.loading import load_reward_model
from r2m.stages.forum import preferences
from r2m.stages.progress import Progress
from r2m.stages.reward_model import trained_on


def train_features(task: ForumTask, sft: Path, reward: Path, folder: Path, progress: Progress) -> None:
    """Into `folder`, of the reward model `reward`: over the pairs that the supervised policy `sft` wrote for it,
    without the tenth that was held out."""
    tokenizer = load_tokenizer(str(sft))
    model, _ = load_reward_model(str(reward))
    pairs = preferences(task, sft, progress).pairs
    encoded = [[response_ids(tokenizer, prompt, text) for text in texts] for prompt, *texts in pairs]
    training, _ = trained_on(encoded, range(len(encoded)), task.seed)
    sequences = [ids for i in training for ids in encoded[i]]
    assert tokenizer.pad_token_id is not None
    save_features(folder, second_moment(model, sequences, tokenizer.pad_token_id, 64))
