"""One pass over a source by all processes together, each over its share."""

from collections.abc import Iterator

from siglip.data import Batch, LoaderSettings, Source, one_pass
from siglip.data.workers import BrokenLedger
from siglip.distributed import all_gather_object, rank, world_size
from siglip.processing import AnyProcessor


def shared_pass(source: Source, processor: AnyProcessor, settings: LoaderSettings) -> Iterator[Batch]:
    """The batches of this process's share, as `one_pass` gives them; all processes must read to the end.

    Raises DataError for more broken samples than `settings.max_broken`. Of several processes all do, after the last
    batch, since the share in all samples counts.
    """
    alone = world_size() == 1
    ledger = BrokenLedger(None, settings.max_broken if alone else 1.0, len(source))
    yield from one_pass(source, processor, settings, rank=rank(), world_size=world_size(), ledger=ledger)
    if not alone:
        BrokenLedger(None, settings.max_broken, len(source)).add_all(all_gather_object(ledger))
