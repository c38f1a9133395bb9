"""What is compared, and how: a criterion is any callable of (student, teacher) that gives a scalar."""

from limbeck.criteria.attention_transfer import AttentionTransfer
from limbeck.criteria.channel_distillation import ChannelDistillation
from limbeck.criteria.channel_transform import ChannelTransform
from limbeck.criteria.cirkd import CIRKD
from limbeck.criteria.cosine import Cosine
from limbeck.criteria.cross_kd import CrossKD
from limbeck.criteria.cwd import CWD
from limbeck.criteria.deit import DeiT
from limbeck.criteria.detr_distill import DETRDistill
from limbeck.criteria.dist import DIST
from limbeck.criteria.dkd import DKD
from limbeck.criteria.fgd import FGD
from limbeck.criteria.fkd import FKD
from limbeck.criteria.foreground_transform import ForegroundTransform
from limbeck.criteria.guided_kd import GuidedKD
from limbeck.criteria.kd import KD
from limbeck.criteria.ld import LD
from limbeck.criteria.mgd import MGD
from limbeck.criteria.nkd import NKD
from limbeck.criteria.ofa_kd import OFAKD
from limbeck.criteria.ofd import OFD
from limbeck.criteria.pkd import PKD
from limbeck.criteria.review_kd import ReviewKD
from limbeck.criteria.rkd import RKD
from limbeck.criteria.similarity_preserving import SimilarityPreserving
from limbeck.criteria.vitkd import ViTKD
from limbeck.criteria.wttm import WTTM

__all__ = [
    "CIRKD",
    "CWD",
    "DIST",
    "DKD",
    "FGD",
    "FKD",
    "KD",
    "LD",
    "MGD",
    "NKD",
    "OFAKD",
    "OFD",
    "PKD",
    "RKD",
    "WTTM",
    "AttentionTransfer",
    "ChannelDistillation",
    "ChannelTransform",
    "Cosine",
    "CrossKD",
    "DETRDistill",
    "DeiT",
    "ForegroundTransform",
    "GuidedKD",
    "ReviewKD",
    "SimilarityPreserving",
    "ViTKD",
]
