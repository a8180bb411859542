"""The paper's mathematics: tensors and numbers in, tensors and numbers out. No I/O, no config objects."""
