"""Disk to `Batch`: caption files, pictures, stored features and targets, and the order in which they are read."""

from gill.data.bad import REPORT_NAME, BadSample, BadSamples
from gill.data.features import FeatureStore, FeatureWriter, StoreCard
from gill.data.flatland import CONTEXTS, STORY_FORMS, FlatlandSource, story_context
from gill.data.images import EXTENSIONS as IMAGE_EXTENSIONS
from gill.data.images import find_image, open_image
from gill.data.loading import Share, StepShare, training_steps, validation_batches
from gill.data.order import BatchOrder, is_paired_step
from gill.data.shards import ShardFolder, find_shards
from gill.data.sources import CaptionFile, Example, Source
from gill.data.table import CaptionTable
from gill.data.targets import FOLDER_NAME as TARGET_FOLDER_NAME
from gill.data.targets import TargetFolder, target_path

__all__ = [
    "CONTEXTS",
    "IMAGE_EXTENSIONS",
    "REPORT_NAME",
    "STORY_FORMS",
    "TARGET_FOLDER_NAME",
    "BadSample",
    "BadSamples",
    "BatchOrder",
    "CaptionFile",
    "CaptionTable",
    "Example",
    "FeatureStore",
    "FeatureWriter",
    "FlatlandSource",
    "ShardFolder",
    "Share",
    "Source",
    "StepShare",
    "StoreCard",
    "TargetFolder",
    "find_image",
    "find_shards",
    "is_paired_step",
    "open_image",
    "story_context",
    "target_path",
    "training_steps",
    "validation_batches",
]
