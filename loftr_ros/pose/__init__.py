"""Matches to relative pose: the one place of robust estimation.

A robust estimator (`robust.py`) finds the pose. A refinement of our own (`refinement.py`), the same for all estimators,
minimises the errors of a model (`models.py`) in pixels of the original images and gives the covariance. A second,
smaller model, rotation without translation, is always fitted as well: where it explains the matches as well as the
first, there was no translation to see, and the pose says so (`two_view.py`).
"""

from loftr_ros.pose.two_view import estimate_relative_pose

__all__ = ['estimate_relative_pose']
