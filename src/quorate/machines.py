"""Ready machines: a key-value store, a stack, and an echo. Written as a user would, with public names alone."""

from __future__ import annotations

from quorate import Rejected, StateMachine, read, write


class KV(StateMachine):
    """Texts by key.

    Attributes:
        entries: what is stored.
    """

    entries: dict[str, str]

    def __init__(self) -> None:
        self.entries = {}

    @write
    def set(self, key: str, value: str) -> str:
        """Store a value, and give it back."""
        self.entries[key] = value
        return value

    @write
    def append(self, key: str, value: str) -> str:
        """Add to the end of a key's value, an unknown key's being empty, and give the whole."""
        self.entries[key] = self.entries.get(key, "") + value
        return self.entries[key]

    @write
    def compare_and_set(self, key: str, expected: str | None, value: str) -> bool:
        """Store a value if the key's is the expected one (None: if the key is unknown); tell whether it was stored."""
        if self.entries.get(key) != expected:
            return False
        self.entries[key] = value
        return True

    @write
    def delete(self, key: str) -> bool:
        """Forget a key; tell whether it was known."""
        return self.entries.pop(key, None) is not None

    @read
    def get(self, key: str) -> str:
        """Give the key's value.

        Raises:
            Rejected: ``"key_not_found"`` and the key.
        """
        if key not in self.entries:
            raise Rejected("key_not_found", key)
        return self.entries[key]


class Stack(StateMachine):
    """Numbers, the last one put the first one out.

    Attributes:
        values: what is stacked, the top last.
    """

    values: list[int]

    def __init__(self) -> None:
        self.values = []

    @write
    def put(self, value: int) -> int:
        """Put a number (of 64 bits) on top; give the new height."""
        self.values.append(value)
        return len(self.values)

    @write
    def pop(self) -> int:
        """Take the top number.

        Raises:
            Rejected: ``"empty"``.
        """
        if not self.values:
            raise Rejected("empty")
        return self.values.pop()

    @read
    def all(self) -> list[int]:
        """Give all the numbers, the top last."""
        return self.values


class Echo(StateMachine):
    """Keeps nothing, and gives back what it gets: for trying out a group, and measuring one."""

    @write
    def say(self, text: str) -> str:
        """Give the text back, by way of the log."""
        return text

    @read
    def hear(self, text: str) -> str:
        """Give the text back, by way of the leader."""
        return text
