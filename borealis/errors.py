"""The root of all typed errors of Borealis.

Owns one class. Each package subclasses it for its own failures; whoever catches `BorealisError` catches every
failure that the project foresaw, and nothing else. It never formats for a terminal or for an AWS answer: the
command line and the API do that from `code` and the message.
"""

from __future__ import annotations


class BorealisError(Exception):
    """A foreseen failure. The message says what was wrong, what was expected and what to do about it.

    `code` is a stable CamelCase word for programs: AWS's own code where there is one.
    """

    code: str = "InternalFailure"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
