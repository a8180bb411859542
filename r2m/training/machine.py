"""What this machine has to compute with."""

import re
from pathlib import Path
from typing import NamedTuple

from r2m.errors import UserError, shown

DRIVERS = "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"  # NVIDIA's, AMD's, Windows' for Linux


def gpus_here() -> tuple[int, int]:
    """How many GPUs torch would find, and the first one's bytes. It is asked, and loaded, only where there is a
    driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return 0, 0
    import torch

    gpus = torch.cuda.device_count()
    return gpus, torch.cuda.get_device_properties(0).total_memory if gpus else 0


class Machine(NamedTuple):
    """One to plan for."""

    gpus: int
    gib: float  # of each GPU

    @classmethod
    def assumed(cls, text: str) -> "Machine":
        """From `8x80`: 8 GPUs of 80 GB each, a GB of 10^9 bytes: what a GPU has beyond that is left for what its
        allocator can't use. Raises UserError."""
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
        if found is None:
            raise UserError(f"--assume {shown(text)}: expected GPUs x GB of each, such as 8x80")
        return cls(int(found[1]), int(found[2]) * 1e9 / 2**30)
