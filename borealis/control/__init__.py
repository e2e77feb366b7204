"""The control plane: typed records, the state store, and the reconciler that moves the world to the records.

Owns desired state. It is never in the path of a query or of a commit: SQL goes on when it is down.
"""
