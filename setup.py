"""Builds the native part of Borealis; everything else about the package stands in pyproject.toml.

Two plain C libraries, neither of them a Python extension: the volume library, which is preloaded into an
unmodified database engine, and the helpers that Python loads with ctypes. They are compiled with the
machine's own C compiler (`CC`, else gcc) into `borealis/_native/`, in a wheel and in an editable install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("native")
COMPILE_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-g",
    "-fPIC",
    "-shared",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-fvisibility=hidden",
]
# Library name → the sources that it is made of.
LIBRARIES = {
    "libborealis_volume": ["logdevice*.c"],
    "libborealis_native": ["walscan*.c"],
}


def sources_of(patterns: list[str]) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in NATIVE.glob(pattern))


class BuildNative(build_ext):
    """Compiles each library with one call of the compiler, without Python's own flags."""

    def get_ext_filename(self, fullname: str) -> str:
        # A plain `name.so`: the name must not change with the version of Python.
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        compiler = os.environ.get("CC", "gcc")
        if shutil.which(compiler) is None:
            raise CompileError(
                f"the C compiler `{compiler}` was not found: install it (Debian: apt-get install gcc "
                "libc6-dev) or name another one with CC=…"
            )
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: a running engine may have the old library mapped.
        fresh = target.with_suffix(f".{os.getpid()}.tmp")
        extra = os.environ.get("CFLAGS", "").split()
        command = [compiler, *COMPILE_FLAGS, *extra, "-o", str(fresh), *ext.sources, "-ldl"]
        print("building", target.name, "from", " ".join(ext.sources))
        try:
            subprocess.run(command, check=True)
        except subprocess.CalledProcessError as error:
            raise CompileError(f"compiling {target.name} failed (exit code {error.returncode})") from error
        fresh.replace(target)


setup(
    ext_modules=[
        Extension(f"borealis._native.{name}", sources_of(patterns))
        for name, patterns in LIBRARIES.items()
        if sources_of(patterns)
    ],
    cmdclass={"build_ext": BuildNative},
)
