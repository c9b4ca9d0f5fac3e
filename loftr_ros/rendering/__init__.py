"""A small renderer of textured planes, boxes and height fields with exact depth, pose and intrinsics.

Four modules: `textures` (random generator -> image), `scene` (faces, boxes, height fields, baked light), `rooms`
(furniture and its arrangement) and `render` (scene -> image and depth). World frames are those of ROS (x forward, y
left, z up, metres), camera frames optical (z forward, x right, y down).
"""

from loftr_ros.rendering.render import render
from loftr_ros.rendering.rooms import furnished_room, room_trajectory
from loftr_ros.rendering.scene import Face, Scene, Texture, bake_light, box, height_field, look_along

__all__ = [
    'Face',
    'Scene',
    'Texture',
    'bake_light',
    'box',
    'furnished_room',
    'height_field',
    'look_along',
    'render',
    'room_trajectory',
]
