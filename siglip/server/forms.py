"""A multipart form -> the JSON body that says the same: every route takes files where it takes pictures.

A file becomes {"image": its data URI}. Fields that are given more than once, or whose name ends in [], become a list;
true and false are what they say, and numbers are read where a route expects one.
"""

import base64
import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from siglip.server.messages import MAX_ITEMS

# no route takes more than two full lists and some fields beside; each list has its own limit
_MOST_PARTS = 2 * MAX_ITEMS + 200


class _InMemory(MultiPartParser):
    # the body is in memory already, and bounded there: nothing goes to a disk
    spool_max_size = 2**30
    max_part_size = 2**20


async def as_json(body: bytes, content_type: str) -> bytes:
    """The same request as JSON. Raises ValueError for a form that is damaged, or has too many parts."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers({"content-type": content_type})
    try:
        form = await _InMemory(headers, stream(), max_files=_MOST_PARTS, max_fields=_MOST_PARTS).parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        raise ValueError(getattr(error, "message", "the form is damaged")) from error
    values: defaultdict[str, list[Any]] = defaultdict(list)
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = base64.b64encode(await value.read()).decode("ascii")
            values[name].append({"image": f"data:application/octet-stream;base64,{data}"})
        else:
            values[name].append(value)
    await form.close()
    single = {name: found[0] if len(found) == 1 else found for name, found in values.items() if name[-2:] != "[]"}
    lists = {name.removesuffix("[]"): found for name, found in values.items() if name[-2:] == "[]"}
    return json.dumps(single | lists).encode()
