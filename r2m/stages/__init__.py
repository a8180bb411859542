"""What comes before the loop: supervised fine-tuning and reward-model training."""
