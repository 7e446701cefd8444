"""What a user's own machine is tried with: drawn calls, the contract of machines, the determinism guard.

``quorate.testing`` exports what is for users.
"""
