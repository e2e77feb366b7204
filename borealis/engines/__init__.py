"""Everything that is particular to one database engine, behind the interface in `base`.

Owns: how an engine is found, made, configured, started, measured, promoted and fed.
Never: processes (the host agent starts them), the quorum log, the control plane's records.
"""
