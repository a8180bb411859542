"""Whether the reward still means anything: signals raise a suspicion, and judgements decide by one rule."""
