"""TLS between nodes, and between clients and nodes: who may speak at all. Knows files and ``ssl``, no sockets.

Both sides show a certificate of one authority. Whoever holds one is trusted with everything, and believed who it is:
quorate has no finer rights, so make an authority for quorate alone.
"""

from __future__ import annotations

import logging
import os
import ssl

import msgspec

_logger = logging.getLogger(__name__)


class TLS(msgspec.Struct, frozen=True, kw_only=True):
    """The certificates with which a node or client speaks TLS 1.3; the same for all that it dials and accepts.

    Files that are replaced while it runs are used by connections that begin after that.

    Attributes:
        certificate: path of this side's certificate, PEM, with its chain if it has one.
        key: path of the certificate's private key, PEM, not encrypted.
        ca: path of the authority's certificate, PEM; the other side's must be signed by it.
        check_hostname: whether the certificate of a node that is dialled must name the host or IP address of the
            node's address. Turn it off only where nodes are reached by IP addresses that no certificate can name in
            advance; then any holder of a certificate of the authority may answer in the place of any node. On or off,
            one that dials is taken for the node that it says it is.
    """

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    ca: str | os.PathLike[str]
    check_hostname: bool = True

    def accepting_context(self) -> ssl.SSLContext:
        """Make the context for connections that are accepted: the other side must show a certificate.

        Raises:
            OSError: a file cannot be read, or (``ssl.SSLError``) is not what it should be.
        """
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def dialling_context(self) -> ssl.SSLContext:
        """Make the context for connections that are dialled: the other side's certificate must be that of its host.

        Raises:
            OSError: a file cannot be read, or (``ssl.SSLError``) is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.check_hostname
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Set what is the same for both sides.

        Raises:
            OSError: a file cannot be read; the message names it.
            SSLError: it is not what it should be; the message names it too.
        """
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        for path in (self.certificate, self.key, self.ca):
            with open(path, "rb"):  # The errors of ``ssl`` name no file.
                pass
        try:
            # With a password, though an empty one: else that of a key that is encrypted is asked for at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            why = error.reason or error
            told = f"{self.certificate} and {self.key} are no certificate and its key, not encrypted, in PEM: {why}"
            raise ssl.SSLError(error.errno, told) from error
        try:
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            told = f"{self.ca} is no certificate in PEM: {error.reason or error}"
            raise ssl.SSLError(error.errno, told) from error
        return context


class Certificates:
    """The contexts of a ``TLS`` for connections that begin now: files that were replaced are read again.

    As long as they cannot be used, those of before are. Connections that are open are not touched.
    """

    def __init__(self, tls: TLS) -> None:
        """Read them.

        Raises:
            OSError: a file cannot be read, or (``ssl.SSLError``) is not what it should be.
        """
        self._tls = tls
        self._seen = self._look()
        self._accepting = tls.accepting_context()
        self._dialling = tls.dialling_context()

    def accepting(self) -> ssl.SSLContext:
        """Give the context for a connection that is accepted."""
        self._follow()
        return self._accepting

    def dialling(self) -> ssl.SSLContext:
        """Give the context for a connection that is dialled."""
        self._follow()
        return self._dialling

    def _look(self) -> list[tuple[int, int, int] | None]:
        """Tell the files apart from those that stand there later."""
        found: list[tuple[int, int, int] | None] = []
        for path in (self._tls.certificate, self._tls.key, self._tls.ca):
            try:
                stat = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found

    def _follow(self) -> None:
        """Read the files again if they are others than those that were read last, or in vain."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen  # Before they are read: one that is replaced meanwhile is read once more.
        try:
            accepting, dialling = self._tls.accepting_context(), self._tls.dialling_context()
        except (OSError, ValueError) as error:
            _logger.warning("the new certificates cannot be used: %s -> those of before are used", error)
        else:
            self._accepting, self._dialling = accepting, dialling
            _logger.info("the certificates were replaced -> new connections use the new ones")
