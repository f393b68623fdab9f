"""A device by name, number or "auto" -> the torch.device, or an error that says what this machine has."""

import torch

from siglip.errors import InputError


def find_device(device: torch.device | str | int | None) -> torch.device:
    """The device to compute on: "auto" is the first GPU or other accelerator, else the CPU; None is the CPU.

    A number is that of a GPU. Raises InputError, before any weights are read, for a device that this machine or this
    PyTorch does not have.
    """
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        found = torch.device("cpu" if device is None else f"cuda:{device}" if isinstance(device, int) else device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"device {device!r} does not exist; pass 'auto', 'cpu', 'cuda', 'cuda:1', 'mps' or the number of a GPU"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= (gpus := torch.cuda.device_count()):
        raise InputError(
            f"device {device!r} is a CUDA GPU, but PyTorch {torch.__version__} sees {gpus or 'none'} here; pass 'auto' "
            "to use what this machine has, or install a GPU driver and a CUDA build of PyTorch"
        )
    try:
        # other kinds show only when they are used that they are missing
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {device!r} cannot be used on this machine ({reason}); pass 'auto' to use what it has, or 'cpu'"
        ) from None
    return found
