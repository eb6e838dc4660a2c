"""Find pictures by embedding, and open them: an index on disk, exact search, and a fetcher that trusts nobody."""

from gill.retrieval.addresses import AddressPolicy, is_public
from gill.retrieval.fetch import PictureFetcher
from gill.retrieval.index import BACKENDS, RetrievalIndex
from gill.retrieval.layout import DTYPES, IndexCard, fingerprint
from gill.retrieval.pictures import FetchLimits
from gill.retrieval.writing import IndexWriter

__all__ = [
    "BACKENDS",
    "DTYPES",
    "AddressPolicy",
    "FetchLimits",
    "IndexCard",
    "IndexWriter",
    "PictureFetcher",
    "RetrievalIndex",
    "fingerprint",
    "is_public",
]
