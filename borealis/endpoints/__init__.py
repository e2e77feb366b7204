"""Where clients connect: loopback addresses, proxies that follow the roles, and names.

Owns the region's block of loopback addresses, the HAProxy processes of its clusters, and the publication of
names (hosts file, name server). It never decides who the writer is and holds no records: the control plane
says what should be, again and again, and `service.EndpointService` makes it so.
"""
