"""The instance's side of the storage: the driver process, the log device, and images of the volume.

Owns what happens between an engine and the storage nodes: shipping the engine's log, serving a reader its
log, opening the volume for a new writer. It never decides who the writer is: the control plane does.
"""
