"""Files that survive a power cut: written aside, synced, renamed; and the lock of a directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from quorate.errors import DiskFull, StoreError, StoreLocked

ASIDE = ".new"
"""Ends the name of a file that is not yet whole; a leftover of a crash, and overwritten by the next try."""


_PUT_BACK = "put back what was there"
_ALLOW = "give the user that this runs as the right to read and write there"
_ADVICE = {
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EROFS: "mount that disk so that it can be written",
    errno.EISDIR: _PUT_BACK,
    errno.ENOTDIR: _PUT_BACK,
    errno.ENOENT: _PUT_BACK,
    errno.EEXIST: _PUT_BACK,
    errno.ELOOP: _PUT_BACK,
}
"""What to do about what the operating system refuses, where it can be told."""


@contextlib.contextmanager
def disk_errors(doing: str, *, with_room: str = " and start again") -> Iterator[None]:
    """Turn what the operating system refuses inside the ``with`` into errors of quorate.

    Args:
        doing: what was tried, such as ``"opening data/a"``, for the message.
        with_room: what follows once there is room, for the message.

    Raises:
        DiskFull: there is no room.
        StoreError: anything else that the operating system refused.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{doing} failed: the disk is full; free some room{with_room}") from error
        raise StoreError(f"{doing} failed: {error}; {_ADVICE.get(error.errno or 0, 'check the disk')}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file whole: after a crash it holds the old content or the new, and the new once this has returned.

    Raises:
        OSError: the disk refused; the old content stands.
    """
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Replace a file whole by what is written inside the ``with``; if that raises, nothing of it is left.

    Raises:
        OSError: the disk refused; the old content stands.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        put_in_place(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def put_in_place(aside: Path, path: Path) -> None:
    """Make a file durable, then give it its final name, durably too.

    Raises:
        OSError: the disk refused.
    """
    # Renamed before it is synced, a crash could leave an empty file under the final name.
    sync_path(aside)
    aside.replace(path)
    sync_path(path.parent)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory that only its owner may enter, durably; one that exists is left as it is.

    Raises:
        OSError: the disk refused.
    """
    is_new = not path.is_dir()
    if is_new:
        # Another node that starts below the same new directory may make it at this moment.
        path.mkdir(mode, exist_ok=True)
    try:
        # Not only when it is new: whoever made it may have been killed before this.
        sync_path(path.parent)
    except OSError as error:
        # Above the data directory there may be some that we may not read, or that cannot be synced.
        if is_new or error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS):
            raise


def make_directories(path: Path) -> None:
    """Make a directory that only its owner may enter, and those above it that are missing, durably.

    Raises:
        OSError: the disk refused.
    """
    if not path.is_dir():
        for above in reversed(path.absolute().parents):
            make_directory(above, 0o777)
    make_directory(path)


def copy_directory(source: Path, target: Path) -> None:
    """Copy a directory with all that is in it to a place where nothing is, so that its owner may write to the copy.

    Raises:
        OSError: the disk refused; a part of the copy may be left.
    """
    try:
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    except shutil.Error as error:
        # It holds a list of all that failed, and an error number of none.
        raise OSError(error.args[0][0][-1]) from error
    for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
        directory.chmod(0o700)


def sync_path(path: Path) -> None:
    """Make durable the content of a file, or which files a directory holds.

    Raises:
        OSError: the disk refused.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DirectoryLock:
    """Keeps a directory locked, by its file ``lock``, until ``close`` or the end of the process: this one alone.

    A process that is forked from it holds none, however long it lives.

    Attributes:
        forked: called in a process that was forked from this one, with the lock held.
    """

    forked: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, path: Path, *, to_read: bool = False) -> None:
        """Lock a directory.

        Args:
            path: the directory.
            to_read: whether only against those who would write to it; nothing is written then, and the file is there.

        Raises:
            StoreLocked: another node has it.
            OSError: the disk refused.
        """
        descriptor = os.open(path / "lock", os.O_RDONLY if to_read else os.O_RDWR | os.O_CREAT, 0o600)
        self._descriptor: int | None = descriptor
        _locks.add(self)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if to_read else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if not to_read:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.close()
            raise StoreLocked(
                f"{path} is in use by process {holder}; stop that node first, or give this node a directory of its own"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others have the directory; idempotent. In a process that was forked meanwhile it does nothing."""
        descriptor = self._forget()
        if descriptor is not None:
            # Closed alone, it would stay locked where a process was forked just now, or by other means than Python's.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @property
    def is_held(self) -> bool:
        """Whether it is locked: no longer once it was closed, and never in a process that was forked meanwhile."""
        return self._descriptor is not None

    def close_copy(self) -> None:
        """Close what a forked process has of it: the other process goes on holding it."""
        descriptor = self._forget()
        if descriptor is not None:
            os.close(descriptor)
            self.forked()

    def _forget(self) -> int | None:
        descriptor, self._descriptor = self._descriptor, None
        _locks.discard(self)
        return descriptor


_locks: set[DirectoryLock] = set()
"""Those that this process holds."""


def _close_copies() -> None:
    for lock in list(_locks):
        lock.close_copy()


os.register_at_fork(after_in_child=_close_copies)
