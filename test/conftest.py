"""Settings of all tests: processes share few cores, so no thread may spin while it waits (see loftr_ros/runtime.py)."""

import logging
import os

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# Where launch_testing is installed, its pytest plug-in sets a class of loggers that pass nothing on to `caplog`.
logging.setLoggerClass(logging.Logger)
