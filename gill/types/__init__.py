"""What travels between rooms: samples and batches, losses, prompts and answers, and the promises of a family."""

from gill.types.generation import (
    Drawer,
    GenerationEvent,
    GenerationOptions,
    Hit,
    ImageDecided,
    ImageOutput,
    ImageReady,
    Picture,
    PictureIndex,
    PictureSource,
    TextDelta,
)
from gill.types.promises import (
    Embeddings,
    Evaluation,
    Family,
    Generator,
    LossBreakdown,
    SampleEncoder,
    TrainingTask,
)
from gill.types.samples import IGNORED_LABEL, IMAGE_SLOT, Batch, CaptionRecord, Sample, Segment, WholeBatch

__all__ = [
    "IGNORED_LABEL",
    "IMAGE_SLOT",
    "Batch",
    "CaptionRecord",
    "Drawer",
    "Embeddings",
    "Evaluation",
    "Family",
    "GenerationEvent",
    "GenerationOptions",
    "Generator",
    "Hit",
    "ImageDecided",
    "ImageOutput",
    "ImageReady",
    "LossBreakdown",
    "Picture",
    "PictureIndex",
    "PictureSource",
    "Sample",
    "SampleEncoder",
    "Segment",
    "TextDelta",
    "TrainingTask",
    "WholeBatch",
]
