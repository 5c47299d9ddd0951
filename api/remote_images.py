"""`--allow-image-hosts`: images that a request names by address, fetched before it is read. Off unless given.

What a client names is called from within the balancer's network, so (OWASP, Server-Side Request Forgery Prevention):

1. Only hosts that the flag allows, over HTTPS. Another port, an address in a private network, and HTTP without TLS only
   of a host that the flag names itself.
2. A name is resolved once, and the connection made to the address that was looked at: it may lead elsewhere later.
3. A redirection is looked at as the first address was.
4. Bounded: `MAX_IMAGES`, `PATIENCE_S` for all of a request, and a body that stays within `--max-body`. It comes before
   the limits of buffer and tenants, so `MAX_FETCHES` bounds it for the whole balancer, lookups of names included.
5. What a name leads to within the network is not told: one refusal for a private address and for none.

What comes takes the place of the address in the body, as the client could have sent it itself.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any, cast

import httpx
import msgspec
from msgspec import Struct

from paddler import __version__
from paddler.errors import ImageFetchesFull, InvalidField
from paddler.image_hosts import ALLOW_IMAGE_HOSTS, ImageHost
from paddler.images import MAX_IMAGES
from paddler.logs import get_logger

log = get_logger(__name__)

PATIENCE_S = 10.0
MAX_FETCHES = 8
"""Requests whose images are fetched at once."""
MAX_REDIRECTS = 3
TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FIELDS = ("messages", "input", "conversation_history")
_UNREACHED = "its host cannot be reached, or is in a private network"
_INWARD = tuple(
    map(
        ipaddress.IPv6Network,
        # NAT64 twice, IPv4-compatible, IPv4-translated, site-local: what they lead to is this network's own affair, and
        # `is_global` is true for the last three.
        ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "fec0::/10"),
    )
)


class _Place(Struct, frozen=True):
    """`part` is the client's object that names `url`; `where` is what errors call it."""

    part: dict[str, Any]
    url: str
    where: str

    def put(self, kind: str, data: bytes) -> None:
        text = base64.b64encode(data).decode()
        if self.part["type"] == "image":
            self.part["source"] = {"type": "base64", "media_type": kind, "data": text}
        elif isinstance(self.part["image_url"], str):
            self.part["image_url"] = f"data:{kind};base64,{text}"
        else:
            self.part["image_url"]["url"] = f"data:{kind};base64,{text}"


class RemoteImages:
    """One for all services of a balancer: it fetches for `max_fetches` requests at once, others wait `wait_s`."""

    def __init__(
        self,
        hosts: tuple[ImageHost, ...],
        max_body: int,
        *,
        patience_s: float = PATIENCE_S,
        wait_s: float = PATIENCE_S,
        max_fetches: int = MAX_FETCHES,
    ) -> None:
        self._patience_s = patience_s
        self._wait_s = wait_s
        self._turns = asyncio.Semaphore(max_fetches)
        self._hosts = hosts
        self._max_body = max_body
        self._tls = httpx.create_ssl_context(trust_env=False)

    async def put_into(self, body: bytes) -> bytes:
        """The body with images in place of their addresses. Raises `InvalidField` for one that is not had, and
        `ImageFetchesFull` where so many others are being fetched that it does not come to its turn."""
        if b"http" not in body:
            return body
        try:
            # Of 32 MiB that takes longer than a stream should wait.
            document: object = await asyncio.to_thread(msgspec.json.decode, body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return body  # whoever reads it says what is wrong
        places = list(_places_in(document))
        if not places:
            return body
        if len(places) > MAX_IMAGES:
            raise InvalidField(f"At most {MAX_IMAGES} images are allowed in a request.", param=places[MAX_IMAGES].where)
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise ImageFetchesFull(
                "The balancer fetches as many images by address as it does at once, and the turn of this request has "
                f"not come within {self._wait_s:g} s. Try again, or send the image itself, as base64.",
                retry_after_s=1,
            ) from None
        try:
            await self._fetch_all(places, (self._max_body - len(body)) * 3 // 4)
        finally:
            self._turns.release()
        return await asyncio.to_thread(msgspec.json.encode, document)

    async def _fetch_all(self, places: list[_Place], num_left: int) -> None:
        where = places[0].where
        try:
            async with (
                asyncio.timeout(self._patience_s),
                httpx.AsyncClient(
                    verify=self._tls,
                    trust_env=False,
                    timeout=self._patience_s,
                    # Pooled by address: another name there would have a connection with the first one's certificate.
                    limits=httpx.Limits(max_keepalive_connections=0),
                ) as client,
            ):
                for place in places:
                    where = place.where
                    kind, data = await self._fetch(client, place, num_left)
                    num_left -= len(data)
                    place.put(kind, data)
        except (TimeoutError, httpx.TimeoutException):
            raise _refusal(where, f"it has not come within {self._patience_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            log.info("image not fetched", where=where, error=type(error).__name__)
            raise _refusal(where, _UNREACHED) from None

    async def _fetch(self, client: httpx.AsyncClient, place: _Place, max_bytes: int) -> tuple[str, bytes]:
        url = httpx.URL(place.url)
        for _ in range(MAX_REDIRECTS + 1):
            address = await self._address_of(url, place.where)
            request = client.build_request(
                "GET",
                url.copy_with(host=address),
                headers={
                    "host": url.netloc.decode(),
                    "accept": ", ".join(TYPES),
                    "accept-encoding": "identity",
                    "user-agent": f"paddler/{__version__}",
                },
                extensions={"sni_hostname": _host_of(url)},
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                if not response.has_redirect_location:
                    return await _image_in(response, place.where, max_bytes)
                url = url.join(response.headers["location"])
            finally:
                await response.aclose()
        raise _refusal(place.where, f"it is redirected more than {MAX_REDIRECTS} times")

    async def _address_of(self, url: httpx.URL, where: str) -> str:
        """Where to connect to. Raises `InvalidField` unless that is allowed."""
        host = _host_of(url)
        allowed = [one for one in self._hosts if one.allows(host)]
        if not allowed or url.userinfo:
            raise _refusal(where, f"the balancer's {ALLOW_IMAGE_HOSTS} does not have its host")
        is_named = any(one.is_one for one in allowed)
        if url.scheme != "https" and not (url.scheme == "http" and any(one.may_be_plain for one in allowed)):
            raise _refusal(where, "it is not https")
        if url.port is not None and not is_named:
            raise _refusal(where, "it has a port of its own")
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(one[4][0]) for one in found]
        if not is_named and not all(map(_is_public, addresses)):
            log.info("image not fetched", where=where, error="private network", host=host)
            raise _refusal(where, _UNREACHED)
        return addresses[0]


def _host_of(url: httpx.URL) -> str:
    """As name servers, certificates and the flag have it: `xn--...`, and without the final dot of an absolute name."""
    return url.raw_host.decode().rstrip(".").lower()


def _refusal(where: str, why: str) -> InvalidField:
    return InvalidField(f"`{where}`: the image is not fetched: {why}. Send the image itself, as base64.", param=where)


async def _image_in(response: httpx.Response, where: str, max_bytes: int) -> tuple[str, bytes]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code != 200:
        raise _refusal(where, f"its host answers with {response.status_code}")
    if kind not in TYPES or response.headers.get("content-encoding", "identity") != "identity":
        raise _refusal(where, f"what comes is none of {', '.join(TYPES)}")
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) > max_bytes:
            raise _refusal(where, "with it the request is larger than the balancer's --max-body")
    return kind, bytes(data)


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            address = inner
        elif address.teredo is not None or any(address in network for network in _INWARD):
            return False
    return address.is_global and not address.is_multicast


def _places_in(document: object) -> Iterator[_Place]:
    """In conversations alone: a schema or a tool may well have such words."""
    if isinstance(document, dict):
        fields = cast("dict[str, object]", document)
        for name in _FIELDS:
            yield from _places_below(fields.get(name), name)


def _places_below(node: object, where: str) -> Iterator[_Place]:
    if isinstance(node, list):
        for number, one in enumerate(cast("list[object]", node)):
            yield from _places_below(one, f"{where}[{number}]")
    elif isinstance(node, dict):
        part = cast("dict[str, Any]", node)
        if (found := _url_of(part)) is not None:
            url, field = found
            if url[:8].lower().startswith(("http://", "https://")):
                yield _Place(part, url, f"{where}.{field}")
            return
        for name in ("content", "output"):
            yield from _places_below(part.get(name), f"{where}.{name}")


def _url_of(part: dict[str, Any]) -> tuple[str, str] | None:
    """OpenAI's and Paddler 4's `image_url`, that of Responses, Anthropic's `image`: the address, and its field."""
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return url, "image_url.url"
        case {"type": "input_image", "image_url": str(url)}:
            return url, "image_url"
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return url, "source"
        case _:
            return None
