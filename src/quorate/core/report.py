"""What a peer knows of itself and its group, for people: ``Status``. Decides nothing and changes nothing."""

from __future__ import annotations

from quorate.core.configuration import Configuration, Member, configuration_text
from quorate.core.election import pending_text
from quorate.core.state import ROLE_NAMES, Leader, State
from quorate.types import Address, Index, MemberKind, MemberStatus, Status


def status(state: State) -> Status:
    """Tell what the peer knows; the shell adds ``last_applied``."""
    configuration = state.configuration
    me = state.me
    return Status(
        name=me.address.name if me else "",
        id=state.peer,
        group=configuration.group if configuration else "",
        role=ROLE_NAMES[type(state.role)],
        term=state.term,
        leader=leader_address(state),
        configuration=tuple(member.address for member in configuration.voters) if configuration else (),
        commit_index=state.commit_index,
        last_applied=Index(0),
        last_index=state.log.last,
        why=why_removed(state) or why_no_leader(state),
        members=members(state, configuration) if configuration else (),
        first_index=Index(state.log.start + 1),
        snapshot_index=state.snapshot_index,
    )


def members(state: State, configuration: Configuration) -> tuple[MemberStatus, ...]:
    """Tell what is known of each member, in the order of their names."""
    found = sorted(configuration.everyone, key=lambda member: member.address.name)
    return tuple(member_status(state, configuration, member) for member in found)


def member_status(state: State, configuration: Configuration, member: Member) -> MemberStatus:
    """Tell what is known of one member."""
    becomes: MemberKind | None = next((other.kind for other in configuration.goal if other.id == member.id), None)
    match_index, heard, is_installing = None, None, False
    if isinstance(state.role, Leader):
        progress = state.role.progress.get(member.id)
        match_index = progress.match_index if progress else state.persisted_index
        heard = max(0.0, state.now - progress.heard) if progress else 0.0
        is_installing = progress is not None and progress.installing > 0
    return MemberStatus(
        address=member.address,
        id=member.id,
        kind=member.kind,
        becomes=becomes,
        match_index=match_index,
        heard=heard,
        is_installing=is_installing,
    )


def leader_address(state: State) -> Address | None:
    """Give the address of the leader, as far as this peer knows it."""
    member = state.configuration.member(state.leader) if state.configuration else None
    return member.address if member else None


def why_no_leader(state: State) -> str | None:
    """Say in a sentence why there is no leader and what to do; None when there is one."""
    if state.leader is not None:
        return None
    if state.configuration is None:
        return (
            "it has no configuration yet: form a group, by quorate form or set_configuration, or start it with join; "
            "if it was a member before, this is not its data directory"
        )
    if state.me is None:
        return f"it is not a member of the group of {configuration_text(state.configuration)}"
    if state.bare and not state.configuration.is_witness(state.peer):
        return (
            "it was a witness, which holds no commands, and never leads: let it join anew with an empty data directory"
        )
    if not state.may_campaign:
        return f"it is a {state.me.kind}, which never leads, and has heard no leader in term {state.term}"
    return pending_text(state)


def why_removed(state: State) -> str | None:
    """Say that a peer was removed from its group, and what to do; None of one that was not, or leads yet."""
    configuration = state.configuration
    if state.leader == state.peer or configuration is None or state.me is not None:
        return None
    if not any(before.member(state.peer) for _, before in state.configurations):
        return None  # It may be a newcomer, whose log has not come to the entry that names it.
    return (
        f"it was removed from the group of {configuration_text(configuration)}; stop it, or let it join anew"
        " (join=…), best with an empty data directory"
    )
