"""A device by name, number or "auto" -> the torch.device, or an error that says what this machine has."""

import copy
from typing import TypeVar

import torch
from torch import nn

from siglip.errors import InputError, clip

_Module = TypeVar("_Module", bound=nn.Module)


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
            f"device {clip(repr(device))} does not exist; pass 'auto', 'cpu', 'cuda', 'cuda:1', 'mps' or the "
            f"number of a GPU"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= (gpus := torch.cuda.device_count()):
        raise InputError(
            f"device {clip(repr(device))} is a CUDA GPU, but PyTorch {torch.__version__} sees "
            f"{gpus or 'none'} here; pass 'auto' "
            "to use what this machine has, or install a GPU driver and a CUDA build of PyTorch"
        )
    try:
        # other kinds show only when they are used that they are missing
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {clip(repr(device))} cannot be used on this machine ({reason}); pass 'auto' to use what "
            f"it has, or 'cpu'"
        ) from None
    return found


def find_dtype(dtype: torch.dtype | str, device: torch.device) -> torch.dtype:
    """The dtype of that name; for "auto" bfloat16 where the device computes in it, else float32. Raises InputError."""
    if dtype == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(f"dtype {clip(repr(dtype))} is not one of 'auto', 'float32', 'bfloat16' and 'float16'")
    return found


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # older versions of PyTorch cannot say, and get float32
    features = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def for_inference(model: _Module, device: torch.device, dtype: torch.dtype) -> _Module:
    """A copy in evaluation mode; its weights share memory with the model's wherever they need not change."""
    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    return copy.deepcopy(model, memo=shared).eval().to(device=device, dtype=dtype)
