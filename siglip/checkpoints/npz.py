"""`.npz` archives array by array: shapes without reading, layers of a stack one at a time, nothing unpickled."""

import functools
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siglip.checkpoints.tensors import StoredTensor
from siglip.errors import CheckpointError

# numpy has no bfloat16; the original code stores it as two raw bytes
_DTYPES = {"<f4": torch.float32, "<f2": torch.float16, "|V2": torch.bfloat16, "<f8": torch.float64}

# what the libraries raise for damaged archives and headers, and for archives with a password
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)


class NpzArray:
    """One array of an archive. Uncompressed it is read from its place in the file, compressed it is unpacked whole."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        with archive.open(member) as stream:
            old = np.lib.format.read_magic(stream) == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
            self.shape, fortran_order, self._dtype = read_header(stream)
            header_bytes = stream.tell()
        self._path = path
        self._name = member.filename
        self._data_bytes = member.file_size - header_bytes
        in_place = member.compress_type == zipfile.ZIP_STORED and not fortran_order
        self._start = _data_start(archive, member) + header_bytes if in_place else None

    def stored(self) -> StoredTensor:
        """The whole array; raises CheckpointError if it holds no floating-point numbers."""
        return StoredTensor(self.shape, self._torch_dtype(), lambda: self._to_torch(self._read(0, self.shape)))

    def layer(self, index: int) -> StoredTensor:
        """What stands at one place of the first axis."""
        shape = self.shape[1:]
        first = index * math.prod(shape)
        return StoredTensor(shape, self._torch_dtype(), lambda: self._to_torch(self._read(first, shape)))

    def _read(self, first: int, shape: tuple[int, ...]) -> np.ndarray:
        count = math.prod(shape)
        if self._start is None:
            return self._unpacked.reshape(-1)[first : first + count].reshape(shape)
        # not mapped into memory: nearly every array is transposed next, which would leave file and copy side by side
        offset = self._start + first * self._dtype.itemsize
        return np.fromfile(self._path, self._dtype, count, offset=offset).reshape(shape)

    @functools.cached_property
    def _unpacked(self) -> np.ndarray:
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(self._name) as stream:
                return np.ascontiguousarray(np.lib.format.read_array(stream, allow_pickle=False))
        except _BROKEN as error:
            raise CheckpointError(f"{self._path}: {self._name} is broken ({error}); get the file again") from error

    def _torch_dtype(self) -> torch.dtype:
        if self._dtype.str not in _DTYPES:
            raise CheckpointError(
                f"{self._path}: {self._name} holds {self._dtype} numbers, expected float32, float16 or bfloat16"
            )
        if self._data_bytes != math.prod(self.shape) * self._dtype.itemsize:
            raise CheckpointError(
                f"{self._path}: {self._name} has {self._data_bytes} bytes, which are not {list(self.shape)} numbers of "
                f"{self._dtype}; get the file again"
            )
        return _DTYPES[self._dtype.str]

    def _to_torch(self, array: np.ndarray) -> Tensor:
        if self._torch_dtype() == torch.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def read_npz(path: Path) -> dict[str, NpzArray]:
    """Every array of an archive by its name, unread; raises CheckpointError for a broken one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): NpzArray(path, archive, member) for member in archive.infolist()
            }
    except _BROKEN as error:
        raise CheckpointError(f"{path} cannot be read as .npz ({error}); get the file again") from error


def write_npz(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write an uncompressed archive, reading one tensor at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, stored in tensors.items():
            tensor = stored.read().contiguous()
            bits = tensor.view(torch.int16).numpy().view("V2") if tensor.dtype == torch.bfloat16 else tensor.numpy()
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, bits, allow_pickle=False)


def _data_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    # the header before the data is not always as long as the one in the directory of the archive
    file = archive.fp
    assert file is not None
    file.seek(member.header_offset)
    header = file.read(30)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return member.header_offset + len(header) + name_bytes + extra_bytes
