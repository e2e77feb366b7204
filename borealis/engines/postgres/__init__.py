"""PostgreSQL as an engine of Borealis: unmodified server binaries, version 14 and later.

Owns all that is particular to PostgreSQL. Never: processes, the quorum log, other engines.
"""
