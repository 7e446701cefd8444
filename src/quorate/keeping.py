"""A machine's state as chunks and back: what ``StateMachine.snapshot`` and ``restore`` do unless they are overridden.

The state is every attribute that is annotated at class level; what a machine might change beside those is refused,
where it can be seen. A chunk is the MessagePack array ``[attribute, value]``;
a container is cut into several, each with some of its items. Also what a copy of a machine is made of. Knows attributes
and their annotations; knows nothing of calls, logs or files.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import re
import types
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, TypeGuard

import msgspec
from msgspec import inspect as forms

from quorate.comparison import Held, Spread, named
from quorate.computed import check_computed, is_computed
from quorate.context import Context
from quorate.errors import MachineError, StoreError, described

ITEMS_MAX = 1000
"""Most items of a container in one chunk: encoding one holds the interpreter, and everybody waits."""

CHUNK_BYTES = 256 * 1024
"""About how large a chunk of several items is."""

FIRST_ITEMS = 32
"""Items in a container's first chunk; the next ones hold as many as the size of that one allows."""

CONTAINERS: tuple[tuple[type[forms.Type], type], ...] = (
    (forms.DictType, dict),
    (forms.ListType, list),
    (forms.SetType, set),
    (forms.FrozenSetType, frozenset),
    (forms.VarTupleType, tuple),
)
"""The annotations whose values are cut into chunks, and what they come back as."""

IMMUTABLE_FORMS: tuple[type[forms.Type], ...] = (
    forms.NoneType,
    forms.BoolType,
    forms.IntType,
    forms.FloatType,
    forms.StrType,
    forms.BytesType,
    forms.DateTimeType,
    forms.TimeType,
    forms.DateType,
    forms.TimeDeltaType,
    forms.UUIDType,
    forms.DecimalType,
    forms.EnumType,
    forms.LiteralType,
    forms.UnionType,
    forms.TupleType,
    forms.VarTupleType,
    forms.FrozenSetType,
    forms.NamedTupleType,
    forms.Metadata,
)
"""The forms whose values cannot change, if nothing in them can."""

PLAIN = (bool, int, float, str, bytes, type(None))
"""The classes whose values may stand at class level, whatever the annotation."""

FIXED = (complex, range, re.Pattern)
"""More classes whose values cannot change, beside those that MessagePack has a form for."""

ADVICE = "or override snapshot and restore"


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One chunk.

    Attributes:
        attribute: the name of an attribute.
        value: its value; of a container some of its items.
    """

    attribute: str
    value: msgspec.Raw


ENCODER = msgspec.msgpack.Encoder()
ANYTHING = msgspec.msgpack.Decoder()
PART_DECODER = msgspec.msgpack.Decoder(Part)


class Attribute(msgspec.Struct, frozen=True):
    """One attribute of a machine's state, as its class annotates it.

    Attributes:
        name: its name.
        label: what people call it, such as ``KV.entries``.
        container: the class of its value, if that is cut into chunks; else None.
        is_immutable: whether its value, or each item of its container, cannot change.
        decoder: of its value; of a container's items in the container that MessagePack knows.
    """

    name: str
    label: str
    container: type | None
    is_immutable: bool
    decoder: msgspec.msgpack.Decoder[Any]

    def encode(self, value: object) -> bytes:
        """Make a chunk.

        Raises:
            ValueError: MessagePack cannot carry the value.
        """
        try:
            return ENCODER.encode((self.name, value))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{self.label} cannot be kept in a snapshot: {error}") from error

    def decode(self, part: Part, first: int = 0) -> Any:  # noqa: ANN401
        """Give the value in a chunk of this attribute.

        Args:
            part: the chunk.
            first: how many items of a container come before those in it.

        Raises:
            ValueError: it is not what the annotation says.
        """
        try:
            return self.decoder.decode(part.value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            why = re.sub(r"(?<=`\$\[)\d+", lambda index: str(first + int(index[0])), str(error), count=1)
            raise ValueError(
                f"{self._place(part.value, first)} is not what its annotation says: {why}; "
                f"keep what it says, annotate it otherwise, {ADVICE}"
            ) from error

    def _place(self, encoded: bytes, first: int) -> str:
        """Say where in a container an item is that cannot be decoded, such as ``KV.entries['a']``, if that is told."""
        with contextlib.suppress(msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            value = ANYTHING.decode(encoded)
            is_mapping = isinstance(value, dict)
            if self.container is (dict if is_mapping else list):
                for place, item in value.items() if is_mapping else enumerate(value, first):
                    alone = ENCODER.encode({place: item} if is_mapping else [item])
                    try:
                        self.decoder.decode(alone)
                    except (msgspec.MsgspecError, ValueError):
                        return f"{self.label}[{place!r}]"
        return self.label

    def freeze(self, value: Any, held: Held) -> Iterator[bytes]:  # noqa: ANN401
        """Give the chunks of a value as it is now, whatever becomes of it while they are taken.

        Behind a snapshot the log is dropped: so each is read again, and compared with what was kept.

        Args:
            value: the value.
            held: knows what can change and stands in the attributes before.

        Raises:
            TypeError: it would come back as something else; also raised while the chunks are taken.
            ValueError: it cannot be kept; also raised while the chunks are taken.
        """
        if self.container is None:
            return self._checked([(self.encode(value), Spread(self.label, value, held=held))])
        if type(value) is not self.container:
            raise TypeError(
                f"{self.label} is {named(value)}, and would come back as {named(self.container())}; "
                f"make it one, {ADVICE}"
            )
        if self.container not in (tuple, frozenset):
            held.hold(self.label, value)
        if self.is_immutable:
            return self._checked(self._pieces(self.container(value), None))
        # What can change is encoded before anything changes.
        return self._checked(list(self._pieces(value, held)))

    def _pieces(self, container: Any, held: Held | None) -> Iterator[tuple[bytes, Spread]]:  # noqa: ANN401
        """Yield chunks of some items each, with what was kept in them; one for an empty container."""
        is_mapping = self.container is dict
        items = iter(container.items() if is_mapping else container)
        first, taken, count = 0, list(itertools.islice(items, FIRST_ITEMS)), FIRST_ITEMS
        while True:
            piece = dict(taken) if is_mapping else taken
            chunk = self.encode(piece)
            # To be compared it is what the annotation says; a deque is a list there.
            piece = piece if self.container in (dict, list, deque, None) else self.container(taken)
            yield chunk, Spread(self.label, piece, first, held)
            first += len(taken)
            count = max(1, min(ITEMS_MAX, count * CHUNK_BYTES // len(chunk)))
            taken = list(itertools.islice(items, count))
            if not taken:
                return

    def _checked(self, chunks: Iterable[tuple[bytes, Spread]]) -> Iterator[bytes]:
        """Yield chunks that can be read again, and then are what was kept."""
        for chunk, kept in chunks:
            kept.compare(self.decode(PART_DECODER.decode(chunk), kept.first))
            yield chunk


def read_attributes(machine: type) -> dict[str, Attribute]:
    """Give what a machine's class and its bases annotate, by name.

    Raises:
        TypeError: an annotation cannot be resolved, or MessagePack cannot carry what it names.
    """
    try:
        hints = typing.get_type_hints(machine)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise TypeError(
            f"the annotations of {machine.__name__} cannot be resolved: {error}; "
            "define the classes they name above the machine, at module level"
        ) from error
    return {
        name: attribute_of(name, f"{machine.__name__}.{name}", annotation)
        for name, annotation in hints.items()
        if ClassVar not in (annotation, typing.get_origin(annotation)) and not is_computed(machine, name)
    }


attributes_of: Callable[[type], dict[str, Attribute]] = functools.cache(read_attributes)
"""Gives the same, found out once for each class: every snapshot asks."""


def attribute_of(name: str, label: str, annotation: Any) -> Attribute:  # noqa: ANN401
    """Read one annotation.

    Raises:
        TypeError: MessagePack cannot carry what it names.
    """
    is_deque = deque in (annotation, typing.get_origin(annotation))
    if is_deque:  # which MessagePack does not know
        annotation = list[typing.get_args(annotation) or (Any,)]  # type: ignore[misc]
    try:
        form = forms.type_info(annotation)
        decoder = msgspec.msgpack.Decoder(annotation)
    except (TypeError, NameError) as error:
        advice = "if no write changes it, annotate it as a ClassVar" if annotation is Final else "annotate it otherwise"
        raise TypeError(f"{label} cannot be kept in a snapshot: {error}; {advice}, {ADVICE}") from error
    within = list(all_forms(form))
    for part in within:
        if is_unknown(part):
            raise TypeError(
                f"{label} cannot be kept in a snapshot: MessagePack has no form for {part.cls.__name__}; "
                f"build it of classes that it has, {ADVICE}"
            )
    container = deque if is_deque else next((kind for known, kind in CONTAINERS if isinstance(form, known)), None)
    is_immutable = all(map(cannot_change, within if container is None else within[1:]))
    return Attribute(name, label, container, is_immutable, decoder)


def unknown_class(annotation: Any) -> type | None:  # noqa: ANN401
    """Give the first class in an annotation that MessagePack has no form for; None if there is none.

    Raises:
        TypeError: msgspec cannot read the annotation.
        NameError: it names what is not defined.
    """
    return next((part.cls for part in all_forms(forms.type_info(annotation)) if is_unknown(part)), None)


def is_unknown(form: forms.Type) -> TypeGuard[forms.CustomType]:
    """Tell whether it is the form of a class that msgspec would ask hooks for, which we have none of."""
    return isinstance(form, forms.CustomType) and form.cls not in (object, msgspec.UnsetType)


def all_forms(form: forms.Type) -> Iterator[forms.Type]:
    """Yield an annotation's form, and those of everything in it, each once."""
    seen: set[int] = set()
    waiting = deque([form])
    while waiting:
        part = waiting.popleft()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        for value in msgspec.structs.astuple(part):
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, forms.Field):
                    waiting.append(inner.type)
                elif isinstance(inner, forms.Type):
                    waiting.append(inner)


def cannot_change(form: forms.Type) -> bool:
    """Tell whether a value of this form stays as it is, if everything in it does."""
    if isinstance(form, forms.StructType):
        kind: type[msgspec.Struct] = typing.get_origin(form.cls) or form.cls  # of Box[int] it is Box
        return kind.__struct_config__.frozen
    return isinstance(form, IMMUTABLE_FORMS)


def freeze(machine: object, *, has_own: bool = False) -> Iterator[bytes]:
    """Give a machine's state as it is now in chunks, which may be taken in another thread while it goes on.

    Args:
        machine: the machine.
        has_own: whether its class has a ``snapshot`` of its own, which may keep more than this.

    Raises:
        TypeError: an attribute would be lost, or come back as something else; also raised while the chunks are taken.
        ValueError: a value cannot be kept; so too.
    """
    attributes = attributes_of(type(machine))
    for name in own_names(machine):
        if name not in attributes and not is_computed(type(machine), name):
            raise TypeError(
                f"{type(machine).__name__}.{name} would be lost: it is not annotated at class level. "
                f"Annotate it there, such as {name}: dict[str, str], {ADVICE}"
            )
    if not has_own:
        check_computed(machine)
    check_bounds(machine, attributes)
    # A list: what can change is encoded here and now, for every attribute.
    held = Held()
    frozen = [attribute.freeze(getattr(machine, name), held) for name, attribute in attributes.items()]
    return itertools.chain.from_iterable(frozen)


def check_bounds(machine: object, attributes: Mapping[str, Attribute]) -> None:
    """Check that each deque has the bound that it comes back with: the one of a fresh machine.

    Raises:
        TypeError: one of them has another.
    """
    for name, attribute in attributes.items():
        if attribute.container is deque and type(value := getattr(machine, name)) is deque:
            bound = fresh_bounds(type(machine))[name]
            if value.maxlen != bound:
                raise TypeError(
                    f"{attribute.label} has {'no bound' if value.maxlen is None else f'a bound of {value.maxlen}'}, "
                    f"and would come back with {'none' if bound is None else f'one of {bound}'}; "
                    f"give it the bound that it has in __init__, {ADVICE}"
                )


def read_bounds(machine: type) -> dict[str, int | None]:
    """Give the bounds that the deques of a fresh machine have, by name."""
    fresh = machine()
    return {name: getattr(getattr(fresh, name, None), "maxlen", None) for name in attributes_of(machine)}


fresh_bounds: Callable[[type], dict[str, int | None]] = functools.cache(read_bounds)
"""Gives the same, found out once for each class."""


def own_names(machine: object) -> Iterator[str]:
    """Yield the names of what a machine itself holds, in slots too."""
    yield from vars(machine)
    for owner in type(machine).__mro__:
        for name, value in vars(owner).items():
            if isinstance(value, types.MemberDescriptorType) and hasattr(machine, name):
                yield name


def outside(state: Any) -> object:  # noqa: ANN401
    """Give, of what Python would copy of a machine, what a copy has that is outside of the group and of any read.

    It has no effects yet, and of a read the time and the index alone. What a write copies goes on in that write.
    """
    held, slots = state if isinstance(state, tuple) else (state, None)
    if not held:
        return state
    copied = {name: value for name, value in held.items() if name != "effects"}
    if "context" in copied and not (context := copied["context"]).is_of_write:
        copied["context"] = Context(context.now, context.index)
    return copied if slots is None else (copied, slots)


def restore(machine: object, chunks: Iterable[bytes]) -> None:
    """Set the attributes of a fresh machine to what ``freeze`` gave.

    Attributes that the chunks lack keep what ``__init__`` or the class gave them: they are newer than the snapshot.

    Raises:
        ValueError: the chunks are not of this class: an attribute is unknown, of another form, or missing without a
            default.
    """
    attributes = attributes_of(type(machine))
    found: dict[str, Any] = {}
    for chunk in chunks:
        try:
            part = PART_DECODER.decode(chunk)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a chunk of a machine's state: {error}") from error
        attribute = attributes.get(part.attribute)
        if attribute is None:
            raise ValueError(
                f"the snapshot holds {part.attribute}, which {type(machine).__name__} does not have; "
                f"keep it annotated at class level, {ADVICE}"
            )
        value = attribute.decode(part, len(found.get(part.attribute, ())) if attribute.container else 0)
        if attribute.container is None:
            found[attribute.name] = value
        elif attribute.container is dict:
            found.setdefault(attribute.name, {}).update(value)
        else:
            found.setdefault(attribute.name, []).extend(value)
    for name, attribute in attributes.items():
        if name in found:
            setattr(machine, name, rebuilt(attribute, found[name], getattr(machine, name, None)))
        elif not hasattr(machine, name):
            raise ValueError(f"the snapshot lacks {attribute.label}; give it a default at class level or in __init__")


def rebuilt(attribute: Attribute, value: Any, fresh: object) -> object:  # noqa: ANN401
    """Make what the annotation names of gathered items; a deque keeps the bound that it has when fresh."""
    if attribute.container is deque:
        return deque(value, fresh.maxlen if isinstance(fresh, deque) else None)
    return value if attribute.container in (None, dict, list) else attribute.container(value)


def check_fresh(machine: object) -> None:
    """Check that the state of a fresh machine can be kept, and that every attribute has a value.

    Raises:
        TypeError: it cannot; the message says what to write.
    """
    for name, attribute in attributes_of(type(machine)).items():
        if not hasattr(machine, name):
            raise TypeError(f"{attribute.label} has no value: set it in __init__, or give it a default at class level")
        value = getattr(machine, name)
        is_shared = getattr(type(machine), name, attribute) is value and not isinstance(value, PLAIN)
        if is_shared and (attribute.container in (dict, list, set, deque) or not attribute.is_immutable):
            raise TypeError(f"{attribute.label} would be shared by all machines of the process: set it in __init__")
    check_class(type(machine))
    try:
        for _ in freeze(machine):
            pass
    except ValueError as error:
        raise TypeError(str(error)) from error


def check_class(machine: type) -> None:
    """Check that what stands at class level without an annotation is no state: writes could not change it.

    Raises:
        TypeError: they could; the message says what to write.
    """
    annotated = typing.get_type_hints(machine)
    for owner in machine.__mro__:
        for name, value in vars(owner).items():
            # What Python keeps in a class itself has such names; what the class is abstract in is no state either.
            is_pythons = (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"
            if not is_pythons and name not in annotated and not is_fixed(value):
                raise TypeError(
                    f"{machine.__name__}.{name} would be lost, and all machines of the process share it: annotate it at"
                    " class level and set it in __init__; or, if no write changes it, annotate it as a ClassVar"
                )


def is_fixed(value: object) -> bool:
    """Tell whether a value at class level is known not to change: a constant, or what classes are made of."""
    kind = type(value)
    if kind in (tuple, frozenset):
        return all(map(is_fixed, typing.cast(Iterable[object], value)))
    if isinstance(value, type) or inspect.isroutine(value) or hasattr(kind, "__get__") or typing.get_origin(value):
        return True
    try:
        return issubclass(kind, FIXED) or all(map(cannot_change, all_forms(forms.type_info(kind))))
    except (TypeError, NameError):  # of a struct whose annotations cannot be resolved
        return False


@contextlib.contextmanager
def faults(label: str, *, is_own: bool = True) -> Iterator[None]:
    """Turn what a machine raises inside the ``with`` into an error of quorate.

    Args:
        label: the method that runs, such as ``"KV.snapshot"``.
        is_own: whether the class wrote it: then it matters where it raised what.

    Raises:
        MachineError: the machine raised; ``__cause__`` is what, if the class wrote the method itself.
        StoreError: as it was raised: what the machine read could not be read.
        MemoryError: as it was raised: it is not the machine's fault.
    """
    try:
        yield
    except (StoreError, MemoryError):
        raise
    except Exception as error:
        raise MachineError(f"{label} raised {described(error)}") from (error if is_own else None)
