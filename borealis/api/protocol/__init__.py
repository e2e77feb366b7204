"""AWS wire protocols, driven by the service models that ship in botocore.

Knows nothing of what the operations do.
"""
