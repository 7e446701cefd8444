"""What the harness runs as processes of their own: each obeys JSON lines on its standard input, and ends with it."""
