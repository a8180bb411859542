"""How many values are held at once, in what computes and in what plans its memory. The plan loads no torch."""

LOGITS = 3 * 2**25  # [tokens, V] of a forward with its backward: two such tensors of fp32, 768 MiB at most
LOGITS_RECOMPUTED = 2**24  # the same beside recomputed layers, where it would be the peak
BUCKET = 2**25  # of a message between workers: large enough for full bandwidth, small beside a model
# Linear layers of this size and more (64 MiB) are packed for sampling on a CPU. Smaller ones stay in the processor's
# caches, where there is little to gain.
PACKED = 2**24
