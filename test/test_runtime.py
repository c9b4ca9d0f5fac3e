"""Settings before the import of torch, in separate processes, because they cannot be undone."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os
from loftr_ros.runtime import prepare_process
lines = prepare_process(keep_memory={keep})
print(os.environ.get('OMP_WAIT_POLICY'), '|'.join(lines))
"""


def run(program, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')}
    ended = subprocess.run(
        [sys.executable, '-c', program], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise():
    assert run(PROGRAM.format(keep=False)) == (
        'PASSIVE OpenMP: threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=500)'
    )
    assert run(PROGRAM.format(keep=False), OMP_WAIT_POLICY='ACTIVE') == 'ACTIVE'
    assert run(PROGRAM.format(keep=False), GOMP_SPINCOUNT='5') == 'None'


def test_a_torch_imported_before_is_reported():
    assert 'torch was imported first' in run('import sys; sys.modules["torch"] = None\n' + PROGRAM.format(keep=False))


@pytest.mark.skipif(__import__('platform').libc_ver()[0] != 'glibc', reason='only glibc has these settings')
def test_freed_memory_is_kept_only_when_asked():
    """A freed block of 256 MiB stays resident with keep_memory and goes back to the kernel without."""
    measure = """
def resident_mib():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
before = resident_mib()
block = bytearray(256 << 20)
del block
print('kept' if resident_mib() - before > 200 else 'returned')
"""
    assert run(PROGRAM.format(keep=True) + measure).endswith('kept')
    assert run(PROGRAM.format(keep=False) + measure).endswith('returned')
