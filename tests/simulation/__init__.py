"""Deterministic simulation of the quorum log: six segments, rival leaders, readers, and a network that does
its worst.

One seed is one run. The segments, openings, shippers, seeders, gossip and readers are the real ones of
`borealis.log`; only disks, connections, engines and the order of events are made up here. A failing seed is
replayed with `python -m tests.simulation --seed N [--mutant NAME] --trace`.
"""
