"""Matches to relative pose: the one place of robust estimation.

A robust estimator (`robust.py`) finds an initial pose. Our own least squares (`least_squares.py`), the same for all
estimators and models, minimises the errors of a model (`models.py`) in pixels of the original images and gives the
covariance. A second, smaller model, rotation without translation, is always fitted too (`fits.py`). If it explains the
matches as well as the first, no translation was visible, and the status says so (`two_view.py`). `acceptance.py`
decides whether wrong matches alone could support the result.
"""

from loftr_ros.pose.two_view import estimate_relative_pose

__all__ = ['estimate_relative_pose']
