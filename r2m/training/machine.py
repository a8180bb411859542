"""What this machine has to compute with."""

from pathlib import Path

DRIVERS = "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"  # NVIDIA's, AMD's, Windows' for Linux


def gpus_here() -> tuple[int, int]:
    """How many GPUs torch would find, and the first one's bytes. It is asked, and loaded, only where there is a
    driver."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return 0, 0
    import torch

    gpus = torch.cuda.device_count()
    return gpus, torch.cuda.get_device_properties(0).total_memory if gpus else 0
