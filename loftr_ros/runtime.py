"""Settings of the process that make networks on a CPU fast; for programs, never for a library import.

Measured on two cores, 640x480: OpenMP threads of torch wait by spinning. Beside another program, a pair then takes 17 s
instead of 1 s. Threads that sleep immediately must be woken some hundred times a pair. With 500 turns of spinning first
(one or two microseconds), the small network is 10 % faster alone, and 4 % slower beside a program that uses one of the
cores. If glibc returns freed memory to the kernel, LoFTR takes 1.3 times as long.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3)."""

TOP_PAD_BYTES = 64 << 20

SPINS = 500
"""Turns in which a thread of GNU's OpenMP looks for work before it sleeps."""


def prepare_process(keep_memory: bool = True) -> list[str]:
    """Set what OpenMP and malloc read, and return what was done, one line each, for a log.

    Call it before torch is imported. A variable that the user has set stays.

    Args:
        keep_memory: let glibc keep freed memory: faster, up to a quarter more resident memory.
    """
    done = []
    if 'OMP_WAIT_POLICY' not in os.environ and 'GOMP_SPINCOUNT' not in os.environ:
        if 'torch' in sys.modules:
            done.append('OpenMP: threads may spin while they wait, since torch was imported first')
        else:
            os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT=str(SPINS))
            done.append(f'OpenMP: threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT={SPINS})')
    if keep_memory and platform.libc_ver()[0] == 'glibc':
        mallopt = ctypes.CDLL(None).mallopt
        accepted = [
            mallopt(M_MMAP_MAX, 0),
            mallopt(M_TRIM_THRESHOLD, -1),
            mallopt(M_TOP_PAD, TOP_PAD_BYTES),
        ]
        if all(accepted):
            done.append('malloc: freed memory is kept (matcher.keep_memory)')
    return done
