"""The host agent: the one parent of all processes of a region on one machine.

`proc` reads /proc, `records` keeps the process records, `table` starts, watches, restarts and ends processes,
`files` makes, copies and removes folders below the region's folder, `agent` offers it all over a Unix socket,
`client` is the typed way to call it, `main` is the process.
"""
