"""Stands in for an engine: runs what the test sends it, line by line, with the volume library preloaded.

A line is a Python statement or expression; the answer is one line: `=` and the value, or `!` and the
exception. All lines share one namespace. It imports nothing of Borealis, as an engine would not.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
names = {
    "ctypes": ctypes,
    "libc": libc,
    "os": os,
    "signal": signal,
    "socket": socket,
    "sys": sys,
    "threading": threading,
}


def call(name: str, *arguments: object) -> tuple[int, int]:
    """Call a function of the C library by its name; (result, errno)."""
    function = getattr(libc, name)
    function.restype = ctypes.c_int
    ctypes.set_errno(0)
    return function(*arguments), ctypes.get_errno()


def fork(statement: str) -> int:
    """Run a statement in a forked child; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        exec(statement, names)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(9)


names["call"] = call
names["fork"] = fork

for line in sys.stdin:
    try:
        try:
            value = eval(line, names)
        except SyntaxError:
            value = exec(line, names)
        print("=", repr(value), flush=True)
    except BaseException as error:
        print("!", repr(error), flush=True)
