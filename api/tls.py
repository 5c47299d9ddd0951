"""The certificate of the services: loaded, and loaded again when its files change, without a connection noticing."""

from __future__ import annotations

import ssl

from paddler.certificates import CertificateProblem
from paddler.clock import Clock
from paddler.logs import get_logger
from paddler.tls_options import TlsFiles

log = get_logger(__name__)

LOOK_S = 10.0
"""Between two looks at the files. Whoever renews a certificate need not tell us; SIGHUP makes it sooner."""
WARN_EVERY_S = 86_400.0


class ServingTls:
    """One context for all services. Raises `CertificateProblem` when it is made."""

    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._seen = self._look()
        self._validity = files.check(clock.wall())
        self.context: ssl.SSLContext = files.new_context()
        self._warned_at: float | None = None

    def reload(self) -> None:
        """Take what the files say now. What cannot be used is logged, and the old certificate stays."""
        self._seen = self._look()
        try:
            self._validity = self._files.check(self._clock.wall())
            # A context that fails half-way has lost its key: another one has a try first.
            self._files.new_context()
            self._files.load_into(self.context)
        except CertificateProblem as error:
            log.error("the certificate cannot be loaded again, the old one stays", error=str(error))
            return
        self._warned_at = None
        log.info("certificate loaded again", valid_until=self._validity.end)

    async def watch_loop(self) -> None:
        """Never returns."""
        while True:
            self.run_once()
            await self._clock.sleep(LOOK_S)

    def run_once(self) -> None:
        if self._look() != self._seen:
            self.reload()
        now = self._clock.wall()
        if self._validity.ends_soon(now) and (self._warned_at is None or now - self._warned_at >= WARN_EVERY_S):
            self._warned_at = now
            log.warning("the certificate of the services ends soon", valid_until=self._validity.end)

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What tells that a file was written, or replaced by another one."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._files.paths:
            try:
                status = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return found
