"""The quorum log, sans-IO: words, rules and state machines; no sockets, no files, no clock.

A log is one linear sequence of bytes, addressed by LSN, held by six segments and written by one leader at a
time. Leaders are told apart by unique, rising *terms*; the *term history* says which leader wrote which
bytes. The modules, in reading order: `types`, `history`, `quorum`, `wire`, `records`, `segment` (one
replica), `opening` (a new leader takes the log over), `shipping` (a leader's steady state), `reading` (what a
reader may see), `seeding` (a volume's birth).
"""
