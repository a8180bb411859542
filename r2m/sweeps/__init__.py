"""A search over settings: its file, the ledger of what is done, Ray Tune, the answer."""
