"""TLS between nodes, and between clients and nodes: who may speak at all. Knows files and ``ssl``, no sockets.

Both sides show a certificate of one authority. Whoever holds one is trusted with everything, and believed who it is:
quorate has no finer rights, so make an authority for quorate alone.
"""

from __future__ import annotations

import os
import ssl

import msgspec


class TLS(msgspec.Struct, frozen=True, kw_only=True):
    """The certificates with which a node or client speaks TLS 1.3; the same for all that it dials and accepts.

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
            context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            told = f"{self.certificate} and {self.key} are no certificate and its key in PEM: {error.reason or error}"
            raise ssl.SSLError(error.errno, told) from error
        try:
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            told = f"{self.ca} is no certificate in PEM: {error.reason or error}"
            raise ssl.SSLError(error.errno, told) from error
        return context
