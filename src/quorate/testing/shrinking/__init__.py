"""A failing run is made short: what was done to the group is left out, as long as it still fails the same way.

What counts as an event is an input to a peer: a message that arrives, a timeout, a write that becomes durable, a crash,
a restart, what a client or an operator asks. When the next one comes, a ``wait`` says, which is no event.
"""
