"""Borealis: an open, self-hosted database service with the architecture and the API of Amazon Aurora.

The rooms of the house, imports pointing down only: `cli`, `api`, `control`, `endpoints`, `host`, `engines`,
`volume`, `storage`, `log`. docs/architecture.md is the map.
"""

__version__ = "0.1.0"
