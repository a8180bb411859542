"""The paper's experiment section again: its tables, figures and claims, from runs of a recipe."""
