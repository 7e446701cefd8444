"""A link to a specification: each step of the real core is explained by actions of an abstract Raft.

::

    python -m quorate.testing specification --traces 1000 --steps 500
"""
