"""A library of pictures on disk: folders in, hits out. No torch until something new must be embedded."""

from siglip.search.exchange import ImportReport
from siglip.search.indexing import IndexReport
from siglip.search.library import Hit, Library, Status
from siglip.search.schema import Image

__all__ = ["Hit", "Image", "ImportReport", "IndexReport", "Library", "Status"]
