"""The world as it is: the ports of `control.ports` over the host agent, driver sockets, nodes and HAProxy."""
