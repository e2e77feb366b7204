"""The table of `rds` operations, for the modules of this package to register in."""

from borealis.api.registry import Operations

operations = Operations("rds")
