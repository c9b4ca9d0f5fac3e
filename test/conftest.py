"""For all tests: processes share few cores, so no thread may spin while it waits (see loftr_ros/runtime.py)."""

import os

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
