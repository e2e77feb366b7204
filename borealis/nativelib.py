"""Loading of the native helpers: `libborealis_native.so` through ctypes.

Owns where the built libraries are, and the check that they are of this version. What is in them is declared
by those who call it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from borealis.errors import BorealisError

NATIVE_DIR: Final = Path(__file__).resolve().parent / "_native"
ABI: Final = 1

Signatures = Mapping[str, tuple[object, Sequence[object]]]
"""Name of a function -> (type of its result, types of its arguments)."""


class NativeLibraryError(BorealisError):
    """The native part of Borealis is missing, or is not of this version."""

    code = "NativeLibraryMissing"


def existing(path: Path) -> Path:
    """`path`, if it is there. Raises NativeLibraryError."""
    if not path.is_file():
        raise NativeLibraryError(
            f"native library {path} is missing: build it with `make -C native` (needs gcc), "
            "or install the package again"
        )
    return path


def load(signatures: Signatures, sizes: Mapping[str, int]) -> ctypes.CDLL:
    """The library, with the functions of `signatures` declared. Raises NativeLibraryError.

    `sizes`: name of a function that says how long a structure is there -> how long it is here, in bytes.
    """
    path = existing(NATIVE_DIR / "libborealis_native.so")
    try:
        library = ctypes.CDLL(str(path), use_errno=True)
        library.borealis_abi.restype = ctypes.c_int
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
        for name in sizes:
            getattr(library, name).restype = ctypes.c_size_t
    except (OSError, AttributeError) as error:
        raise NativeLibraryError(
            f"native library {path} cannot be used ({error}): build it again with `make -C native`"
        ) from error
    same = all(getattr(library, name)() == size for name, size in sizes.items())
    if library.borealis_abi() != ABI or not same:
        raise NativeLibraryError(
            f"native library {path} is of another version: build it again with `make -C native`"
        )
    return library
