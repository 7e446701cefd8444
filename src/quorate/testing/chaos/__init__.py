"""Chaos: a group of real processes on real disks, faults from outside, and clients whose history is judged.

``python -m quorate.testing chaos`` runs it; ``docs/guide/chaos.md`` says what it does. Nothing here is imported by
anything else, and nothing here knows the core: nodes are started, stopped, killed and cut off as an operator would.
"""
