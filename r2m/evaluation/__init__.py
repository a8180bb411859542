"""What a run or a model is worth: win rates, judges, AlpacaEval, reward accuracy, similarity."""
