"""Small random histories, and whether they are linearizable by trying every order: what the checker is held against."""

from itertools import combinations, permutations
from random import Random

import msgspec

from quorate import Rejected
from quorate.machines import KV
from quorate.testing.history.operations import Operation

KEY = "k"
TEXTS = ("a", "b")


def run(machine: KV, operation: Operation) -> object:
    """Run a call on a plain machine; give the reply, or what stands for its refusal."""
    try:
        return operation.method.function(machine, *operation.args)
    except Rejected:
        return "refused"


def is_linearizable(operations: list[Operation]) -> bool:
    """Try every order of the calls that were answered, with any of the unknown ones in any places."""
    answered = [operation for operation in operations if operation.fate == "ok"]
    unknown = [o for o in operations if o.fate == "unknown" and o.method is not KV.get]
    for count in range(len(unknown) + 1):
        for some in combinations(unknown, count):
            if any(fits(order) for order in permutations([*answered, *some])):
                return True
    return False


def fits(order: tuple[Operation, ...]) -> bool:
    """Tell whether a machine answers like that, and no call comes before one that returned before it began."""
    for place, operation in enumerate(order):
        if any(later.returned is not None and later.returned < operation.called for later in order[place:]):
            return False
    machine = KV()
    for operation in order:
        output = run(machine, operation)
        expected = "refused" if isinstance(operation.output, Rejected) else operation.output
        if operation.fate == "ok" and output != expected:
            return False
    return True


def draw_history(random: Random, length: int, *, texts: tuple[str, ...] = TEXTS) -> list[Operation]:
    """Draw a history that is linearizable: each call takes effect at one instant between its beginning and its end."""
    effects = sorted((random.randrange(40), number) for number in range(length))
    machine = KV()
    operations: list[Operation] = []
    for at, number in effects:
        text, other = random.choice(texts), random.choice((None, *texts))
        method, args = random.choice(
            (
                (KV.set, (KEY, text)),
                (KV.get, (KEY,)),
                (KV.get, (KEY,)),
                (KV.append, (KEY, text)),
                (KV.compare_and_set, (KEY, other, text)),
                (KV.delete, (KEY,)),
            )
        )
        called, returned = at - random.randrange(12), at + random.randrange(12)
        operation = Operation(client=number, method=method, args=args, called=called, returned=returned, fate="failed")
        chance = random.random()
        if chance < 0.05:
            operations.append(operation)
            continue
        output = run(machine, operation) if chance > 0.15 else None
        if chance < 0.3:
            operations.append(msgspec.structs.replace(operation, returned=None, fate="unknown"))
            continue
        answer = Rejected("key_not_found", KEY) if output == "refused" else output
        operations.append(msgspec.structs.replace(operation, fate="ok", output=answer))
    return operations


def perturb(random: Random, operations: list[Operation]) -> list[Operation]:
    """Change an answer or an end of one of the calls that were answered, as any that another call might have."""
    answered = [number for number, operation in enumerate(operations) if operation.fate == "ok"]
    if not answered:
        return operations
    changed = list(operations)
    number = random.choice(answered)
    operation = operations[number]
    assert operation.returned is not None
    match random.randrange(3):
        case 0:
            alike = [o.output for o in operations if o.fate == "ok" and o.method is operation.method]
            output = not operation.output if isinstance(operation.output, bool) else random.choice(alike)
            changed[number] = msgspec.structs.replace(operation, output=output)
        case 1:
            changed[number] = msgspec.structs.replace(
                operation, returned=random.randint(operation.called, operation.returned)
            )
        case _:
            called = operation.called + random.randrange(-20, 20)
            changed[number] = msgspec.structs.replace(
                operation, called=called, returned=called + operation.returned - operation.called
            )
    return changed


def forget(random: Random, operations: list[Operation]) -> list[Operation]:
    """Let nobody know what became of about every third write."""
    return [
        msgspec.structs.replace(operation, returned=None, fate="unknown", output=None)
        if operation.fate == "ok" and operation.method is not KV.get and random.random() < 0.35
        else operation
        for operation in operations
    ]
