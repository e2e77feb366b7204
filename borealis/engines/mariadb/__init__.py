"""MariaDB as an engine of Borealis: unmodified server binaries, release series 10.11.

Owns all that is particular to MariaDB. Never: processes, the quorum log, other engines.
"""
