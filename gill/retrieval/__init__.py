"""Find pictures by embedding, and open them: an index on disk, exact search, and a fetcher that trusts nobody."""

from gill.retrieval.addresses import AddressPolicy, is_public
from gill.retrieval.fetch import PictureFetcher
from gill.retrieval.importing import (
    ReleasedEmbeddings,
    check_imported,
    import_released,
    read_released_embeddings,
)
from gill.retrieval.index import BACKENDS, RetrievalIndex
from gill.retrieval.layout import DTYPES, MANIFEST_NAME, IndexCard, fingerprint, is_storable
from gill.retrieval.pictures import FORMATS, FetchLimits
from gill.retrieval.writing import IndexWriter

__all__ = [
    "BACKENDS",
    "DTYPES",
    "FORMATS",
    "MANIFEST_NAME",
    "AddressPolicy",
    "FetchLimits",
    "IndexCard",
    "IndexWriter",
    "PictureFetcher",
    "ReleasedEmbeddings",
    "RetrievalIndex",
    "check_imported",
    "fingerprint",
    "import_released",
    "is_public",
    "is_storable",
    "read_released_embeddings",
]
