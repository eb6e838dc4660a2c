"""What trains: [IMG] token rows, linear heads, the conditioning mappers and the decision head."""

from gill.mappers.conditioning import MAPPERS, GILLMapper, MapperSizes, TokenwiseMapper, build_mapper
from gill.mappers.decision import DecisionHead
from gill.mappers.heads import RetrievalHeads, VisualPrefix
from gill.mappers.img_tokens import ImgTokenEmbedding

__all__ = [
    "MAPPERS",
    "DecisionHead",
    "GILLMapper",
    "ImgTokenEmbedding",
    "MapperSizes",
    "RetrievalHeads",
    "TokenwiseMapper",
    "VisualPrefix",
    "build_mapper",
]
