"""The storage node: keeps segments (copies of volumes' logs) on disk and serves them.

Owns everything below nodes/<node> of a region's data directory, and the sockets of the nodes. It knows
log bytes, terms and blobs; it never looks into the bytes and knows nothing of SQL. What may be accepted,
promised or cut is decided by `borealis.log`, never here.
"""
