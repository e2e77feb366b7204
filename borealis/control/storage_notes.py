"""Events about a volume's storage: damage that was found, nodes that take no log. Pure.

Owns the wording and what has been told already, which is in the cluster's record: it changes in the commit
that stores the event, so that each is told once, whoever starts again in between.
"""

from __future__ import annotations

from borealis.control.events import ClusterEvent, cluster_event
from borealis.control.records import Cluster, NodeNoted
from borealis.control.store import Op, Put
from borealis.control.view import SegmentSeen, View

_TROUBLES = {
    "StorageFull": "its disk is full",
    "ReadOnly": "its disk is mounted read-only",
    "StorageBroken": "its disk fails",
    "SegmentDamaged": "what it had promised may be lost: remove it, there are other copies",
}


def settle_storage(view: View) -> list[Op]:
    """The operations that tell what is new about the volume's segments; empty when nothing is."""
    cluster = view.cluster
    noted = dict(cluster.volume.noted)
    events: list[Op] = []
    for segment in view.volume.segments:
        old = noted.get(segment.node, NodeNoted())
        new = _seen(segment, old)
        if new != old:
            noted[segment.node] = new
            events += [_note(cluster, segment, text) for text in _texts(old, new)]
    if noted == cluster.volume.noted:
        return []
    return [Put(cluster.but(volume=cluster.volume.but(noted=noted))), *events]


def _seen(segment: SegmentSeen, old: NodeNoted) -> NodeNoted:
    if segment.connected:
        return NodeNoted(damaged=segment.damaged, trouble=segment.trouble)
    # One that does not answer at all says nothing new about its disk.
    return old.but(trouble=segment.trouble) if segment.trouble else old


def _texts(old: NodeNoted, new: NodeNoted) -> list[str]:
    texts: list[str] = []
    if new.damaged > old.damaged:
        texts.append("holds damaged data; it is not used and is fetched anew from other nodes")
    if new.trouble != old.trouble:
        why = _TROUBLES.get(new.trouble, new.trouble)
        texts.append(f"does not take log: {why}; nothing is lost" if new.trouble else "takes log again")
    return texts


def _note(cluster: Cluster, segment: SegmentSeen, text: str) -> Op:
    reason = f"Storage node {segment.node} in {segment.zone} {text}."
    return cluster_event(ClusterEvent.NOTE, cluster, reason=reason)
