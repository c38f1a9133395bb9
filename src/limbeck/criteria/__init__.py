"""What is compared, and how: a criterion is any callable of (student, teacher) that gives a scalar."""

from limbeck.criteria.channel_transform import ChannelTransform
from limbeck.criteria.kd import KD

__all__ = ["KD", "ChannelTransform"]
