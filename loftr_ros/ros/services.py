"""The node's services: reset, pause, resume, set_keyframe and match_pair."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from std_srvs.srv import Trigger

from loftr_ros.camera import Camera
from loftr_ros.camera_messages import camera_from_info
from loftr_ros.config import Config
from loftr_ros.datatypes import Frame, PoseFailure, PoseStatus
from loftr_ros.errors import LoftrRosError
from loftr_ros.levels import Levels
from loftr_ros.messages import depth_from_msg, image_from_msg, stamp_ns
from loftr_ros.ros import conversions
from loftr_ros.ros.worker import Worker
from loftr_ros.srv import MatchImages


class Services:
    """Services of a node about its worker.

    Args:
        config: returns the present configuration.
        reset: called by ~/reset with its reason.

    Attributes:
        paused: whether sets of messages are to be ignored.
    """

    def __init__(self, node, worker: Worker, config: Callable[[], Config], reset: Callable[[str], None]):
        self.paused = False
        self._worker = worker
        self._config = config
        self._reset = reset
        self._logger = node.get_logger()
        node.create_service(Trigger, '~/reset', self._on_reset)
        node.create_service(Trigger, '~/pause', lambda _, response: self._pause(True, response))
        node.create_service(Trigger, '~/resume', lambda _, response: self._pause(False, response))
        node.create_service(Trigger, '~/set_keyframe', self._on_set_keyframe)
        node.create_service(MatchImages, '~/match_pair', self._on_match_pair)

    def _on_reset(self, _request, response):
        self._reset('~/reset was called')
        response.success, response.message = True, 'started again'
        return response

    def _pause(self, paused: bool, response):
        words = 'paused' if paused else 'resumed'
        response.success = True
        response.message = words if paused != self.paused else f'was {words} already'
        self.paused = paused
        self._logger.info(response.message)
        return response

    def _on_set_keyframe(self, _request, response):
        response.success = self._config().input.pairing != 'stereo'
        response.message = 'the next set with a pose becomes the keyframe'
        if not response.success:
            response.message = 'with input.pairing stereo there is no keyframe: left is matched with right'
        else:
            self._worker.request_keyframe()
        return response

    def _on_match_pair(self, request, response):
        try:
            frames, depth0_m = self._decode(request)
            result = self._worker.match_pair(*frames, depth0_m, (request.id0, request.id1))
        except LoftrRosError as error:
            response.message = str(error)
            return response
        except Exception as error:  # of a network or an engine: an exception in a service would end the node
            self._logger.error(f'please report this:\n{traceback.format_exc()}')
            response.message = f'please report this: {type(error).__name__}: {error}'
            return response
        headers = [conversions.header(frame.stamp_ns, frame.frame_id) for frame in (frames[1], frames[0])]
        response.success = True
        response.matches = conversions.matches_to_msg(result, *headers, matcher=self._worker.matcher_name)
        pose = result.pose
        if pose is None:
            reason = 'camera_info0 or camera_info1 is empty: there are matches and no pose'
            pose = PoseFailure(PoseStatus.TOO_FEW_INLIERS, reason, len(result.matches))
        if isinstance(pose, PoseFailure):
            response.message = pose.reason
        response.relative_pose = conversions.relative_pose_to_msg(
            pose, *headers, request.id0, request.id1, result.pose_s
        )
        return response

    def _decode(self, request):
        rectified, levels = self._config().input.rectified, Levels()
        frames = [
            Frame(
                image_from_msg(image, levels),
                _camera(info, rectified),
                stamp_ns(image.header),
                image.header.frame_id,
            )
            for image, info in ((request.image0, request.camera_info0), (request.image1, request.camera_info1))
        ]
        return frames, depth_from_msg(request.depth0) if len(request.depth0.data) else None


def _camera(info, rectified: bool) -> Camera | None:
    is_empty = not (any(info.k) or any(info.p))
    return None if is_empty else camera_from_info(info, rectified=rectified)
