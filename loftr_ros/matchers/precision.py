"""Selection of the floating-point format of a network."""

from __future__ import annotations

from pathlib import Path

import torch

from loftr_ros.errors import ConfigError

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

CPU_UNITS = {torch.float16: {'avx512_fp16', 'amx_fp16'}, torch.bfloat16: {'avx512_bf16', 'amx_bf16'}}
"""Flags of /proc/cpuinfo for arithmetic in hardware. Without it bf16 is a hundred times slower than fp32."""


def choose_dtype(precision: str, device: torch.device, engine: str = 'torch') -> torch.dtype:
    """Return the format that `matcher.precision` names; 'auto': bf16 if the CPU computes it in hardware.

    On a GPU 'auto' is fp32, because speed and accuracy of half precision are not measured there yet.

    Raises:
        ConfigError: the device does not support the format.
    """
    if precision == 'auto':
        has_units = device.type == 'cpu' and cpu_has_units(torch.bfloat16)
        precision = 'bf16' if has_units and engine == 'torch' else 'fp32'
    dtype = DTYPES[precision]
    if dtype is torch.float32:
        return dtype
    if device.type == 'cpu' and not cpu_has_units(dtype):
        raise ConfigError(
            f'matcher.precision is {precision} on a CPU that has none of {", ".join(sorted(CPU_UNITS[dtype]))} and '
            'would be a hundred times slower with it; set matcher.precision: fp32, or matcher.device: cuda'
        )
    if device.type == 'cuda' and dtype is torch.bfloat16 and torch.cuda.get_device_capability(device)[0] < 8:
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f'matcher.precision is bf16 and {name} has no arithmetic for it; set matcher.precision: fp16')
    return dtype


def cpu_has_units(dtype: torch.dtype) -> bool:
    """Return whether the CPU computes float16 or bfloat16 in hardware."""
    return bool(CPU_UNITS[dtype] & cpu_flags())


def cpu_flags() -> set[str]:
    """Return the flags of the first processor; empty if the system does not list them."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(':')[2].split()) for line in lines if line.startswith('flags')), set())
