"""Which arithmetic a device is fast at."""

from __future__ import annotations

import platform

import torch

PRECISIONS = ("auto", "fp32", "bf16")


def supports_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware, so that the networks gain by it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN takes bfloat16 on any AVX-512 CPU but emulates it there, slower than float32: where torch can
    # tell, the instructions themselves decide; elsewhere (ARM) its word does.
    probes = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    if platform.machine() in ("x86_64", "AMD64") and all(probes):
        return any(probe() for probe in probes if probe)
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch built without oneDNN has no such operator
        return False


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether "auto", "fp32" or "bf16" means bfloat16 on a device.

    Raises:
        ValueError: on another word, or if bfloat16 was asked for where the hardware lacks it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    able = precision != "fp32" and supports_bf16(device)
    if precision == "bf16" and not able:
        raise ValueError(
            f"precision bf16 was asked for, but this {device.type} has no bfloat16; use auto or fp32."
        )
    return able


def full(outputs: torch.Tensor) -> torch.Tensor:
    """Half-precision outputs in 32 bits: distributions and losses are never computed in fewer."""
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
