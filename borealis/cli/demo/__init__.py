"""`borealis demo`: the main job of Borealis, played with stock clients against a running region.

`cluster` makes the cluster through the AWS API, `orders` holds the example's SQL, `outage` writes while the
writer is killed and keeps books, `story` tells it all in order. Everything may be played again and again.
"""

from borealis.cli.demo.story import play

__all__ = ["play"]
