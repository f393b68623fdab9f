"""Folders -> a note each time something in them changes."""

from collections.abc import Generator, Sequence
from pathlib import Path

from siglip.errors import InputError

_QUIET_MS = 1_600  # a copy of many files is one change


def changes(roots: Sequence[Path]) -> Generator[set[Path], None, None]:
    """Yield those of the folders in which something changed, until KeyboardInterrupt. Raises InputError."""
    try:
        from watchfiles import watch
    except ImportError as error:
        raise InputError("--watch needs watchfiles; pip install 'siglip[search]'") from error
    there = [root for root in roots if root.exists()]
    if not there:
        raise InputError(f"none of the folders to watch exists: {', '.join(map(str, roots))}")
    # hidden files count too: a picture may be renamed from one
    for events in watch(*there, watch_filter=None, debounce=_QUIET_MS):
        changed = [Path(path) for _, path in events]
        yield {root for root in there if any(path.is_relative_to(root) for path in changed)}
