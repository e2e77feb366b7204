"""Builds the native part of Borealis; everything else about the package stands in pyproject.toml.

Plain C libraries, none of them a Python extension: the volume library, which is preloaded into an unmodified
database engine, the helpers that Python loads with ctypes, and the plugin that a MariaDB server loads. They
are compiled with the machine's own C compiler (`CC`, else gcc) into `borealis/_native/`, in a wheel and in
an editable install.
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
LIBRARIES = ("libborealis_volume", "libborealis_native", "libborealis_mariadb")


class BuildNative(build_ext):
    """Runs native/Makefile, which alone knows sources and flags, once for each library."""

    def get_ext_filename(self, fullname: str) -> str:
        # A plain `name.so`: the name must not change with the version of Python.
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        compiler = os.environ.get("CC", "gcc")
        for program in ("make", compiler):
            if shutil.which(program) is None:
                raise CompileError(
                    f"`{program}` was not found: install it (Debian: apt-get install make gcc libc6-dev); "
                    "CC=… names another compiler"
                )
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        command = [
            "make",
            "--no-print-directory",
            "-C",
            str(NATIVE),
            f"CC={compiler}",
            f"OUT={target.parent}",
        ]
        try:
            subprocess.run([*command, str(target)], check=True)
        except subprocess.CalledProcessError as error:
            raise CompileError(f"compiling {target.name} failed (exit code {error.returncode})") from error


setup(
    ext_modules=[
        Extension(f"borealis._native.{name}", sorted(str(path) for path in NATIVE.rglob("*.c")))
        for name in LIBRARIES
    ],
    cmdclass={"build_ext": BuildNative},
)
