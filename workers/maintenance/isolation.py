"""One pool's fault is not another's: a key of a wrong type, say, written by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from redis.exceptions import ResponseError

from paddler.logs import get_logger
from paddler.store.client import FAILOVER

log = get_logger(__name__)


@contextlib.contextmanager
def only_this_pool(name: str) -> Generator[None]:
    """Log what Redis refuses within, and go on. A server that is no primary refuses everything: that is raised."""
    try:
        yield
    except FAILOVER:
        raise
    except ResponseError as error:
        log.error("the upkeep of a pool was refused; its others go on", pool=name, error=str(error))
