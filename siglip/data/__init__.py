"""Storage -> Batch: sources of samples, their order, augmentation, and the loader that a run can be resumed with."""

from siglip.data.augment import Augment
from siglip.data.batch import Batch, LoaderSettings
from siglip.data.loader import Loader, one_pass
from siglip.data.open import open_source
from siglip.data.source import Sample, Source, Subset
from siglip.data.store import ShardStore
from siglip.data.tables import Columns

__all__ = [
    "Augment",
    "Batch",
    "Columns",
    "Loader",
    "LoaderSettings",
    "Sample",
    "ShardStore",
    "Source",
    "Subset",
    "one_pass",
    "open_source",
]
