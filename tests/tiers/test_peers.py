"""Blocks from agent to agent: a real server in another process, real clients, and peers as they must not be."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from stalled import dribbles, says
from structlog.testing import capture_logs

from paddler.clock import SystemClock
from workers.agent.tiers import peers
from workers.agent.tiers.block_stream import MAX_BODY, MAX_NAMES, PATH, encode_names
from workers.agent.tiers.passes import Passes
from workers.agent.tiers.peers import PeerTier
from workers.agent.tiers.restoring import RestoreSpeed
from workers.agent.tiers.serving import MAX_EACH

SECRET = b"s" * 32
NAMES = [bytes([number]) * 16 for number in range(6)]
LENDER = Path(__file__).parents[1] / "support" / "lender_process.py"


class Lender:
    """A process that gives away what lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(LENDER), str(folder), SECRET.hex()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def has(self, name: bytes, packed: bytes) -> bytes:
        (self.folder / name.hex()).write_bytes(packed)
        return packed

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lender]:
    lender = Lender(tmp_path_factory.mktemp("lender"))
    for name in NAMES[:4]:
        lender.has(name, name * 200_000)
    yield lender
    lender.close()


def tier_of(
    secret: bytes = SECRET, *, ahead_s: float = 0.0, own_url: str = "", speed: RestoreSpeed | None = None
) -> PeerTier:
    clock = SystemClock()
    now_s = lambda: clock.wall() + ahead_s  # noqa: E731
    return PeerTier(Passes(secret), clock, now_s, own_url=own_url, speed=speed or RestoreSpeed())


def read(tier: PeerTier, *peers: str, names: list[bytes] = NAMES, deadline_s: float = 10.0) -> list[bytes]:
    return tier.read(names, peers=peers, deadline_s=deadline_s)


def test_up_to_the_first_that_is_missing(lender: Lender) -> None:
    speed = RestoreSpeed()
    tier = tier_of(speed=speed)
    assert read(tier, lender.url) == [name * 200_000 for name in NAMES[:4]]
    assert speed.tokens_per_s > 0
    assert read(tier, lender.url, names=NAMES[2:]) == [name * 200_000 for name in NAMES[2:4]]
    assert read(tier, lender.url, names=NAMES[4:]) == []
    assert read(tier) == []
    assert read(tier_of(own_url=lender.url), lender.url) == [], "nobody asks himself"


def test_the_next_is_asked_when_one_does_not_answer(lender: Lender) -> None:
    with says() as port:
        silent = f"http://127.0.0.1:{port}"
        tier = tier_of()
        assert len(read(tier, silent, lender.url, deadline_s=4.0)) == 4
        assert read(tier, "http://127.0.0.1:1", "http://127.0.0.1:2", lender.url) == [], "two are tried"
        assert len(read(tier, silent, "http://127.0.0.1:1", lender.url)) == 4, "they are left out for a while"
        assert read(tier_of(), silent, deadline_s=0.2) == [], "it ends by the deadline"


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\xff\xff\xff\xffabcde",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\x00\x00\x00\x06abcde",
    ],
    ids=["no HTTP", "an error", "a block of 4 GB", "cut off"],
)
def test_nonsense_is_nothing(said: bytes) -> None:
    with says(said) as port:
        assert read(tier_of(), f"http://127.0.0.1:{port}", deadline_s=1.0) == []


def test_what_came_whole_is_of_use_although_the_rest_did_not_come() -> None:
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n\x00\x00\x00\x05whole\x00\x00\x00\x05ha"
    with says(said) as port:
        assert read(tier_of(), f"http://127.0.0.1:{port}", deadline_s=0.5) == [b"whole"]


def test_no_more_blocks_are_taken_than_were_asked_for() -> None:
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + 4 * b"\x00\x00\x00\x05whole"
    with says(said) as port:
        assert read(tier_of(), f"http://127.0.0.1:{port}", names=NAMES[:2]) == [b"whole"] * 2


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_BYTES", 12)
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + 4 * b"\x00\x00\x00\x05whole"
    with says(said) as port:
        assert read(tier_of(), f"http://127.0.0.1:{port}") == [b"whole"] * 2


def test_who_gives_a_little_now_and_then_gets_no_more_time() -> None:
    """Its test is that this ends: the header never does."""
    with dribbles(b"HTTP/1.1 200 OK\r\nx: ", b"x" * 10) as port:
        assert read(tier_of(), f"http://127.0.0.1:{port}", deadline_s=0.3) == []


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://127.0.0.1", "file:///etc/passwd", "", "http://[::"])
def test_what_is_no_address_is_not_asked(url: str) -> None:
    assert read(tier_of(), url) == []


def test_a_peer_that_was_killed(tmp_path: Path) -> None:
    other = Lender(tmp_path)
    other.has(NAMES[0], b"block")
    tier = tier_of()
    assert read(tier, other.url) == [b"block"]
    other.close()
    assert read(tier, other.url) == []


@pytest.mark.parametrize(
    ("tier", "why"),
    [(lambda: tier_of(b"t" * 32), "no pass of this fleet"), (lambda: tier_of(ahead_s=200), "of another time")],
    ids=["forged", "stale"],
)
def test_who_is_not_of_the_fleet_gets_nothing(lender: Lender, tier: Callable[[], PeerTier], why: str) -> None:
    with capture_logs() as logged:
        assert read(tier(), lender.url) == []
    assert [why in entry["error"] for entry in logged] == [True]


def ask(
    lender: Lender, body: bytes, header: str | None, *, method: str = "POST", path: str = PATH
) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", lender.port, timeout=10)) as connection:
        connection.request(method, path, body, {} if header is None else {"authorization": header})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_what_is_refused(lender: Lender) -> None:
    passes, now = Passes(SECRET), SystemClock().wall()
    body = encode_names(NAMES[:1])
    good = passes.issue(lender.url, body, now)
    assert ask(lender, body, None)[0] == 401
    assert ask(lender, encode_names(NAMES[:2]), good)[0] == 401, "of another body"
    assert ask(lender, body, good)[0] == 200
    assert ask(lender, body, good) == (401, b"a pass that was used before\n")
    assert ask(lender, body, passes.issue(lender.url, body, now), path="/")[0] == 404
    assert ask(lender, body, passes.issue(lender.url, body, now), method="GET")[0] == 405
    assert ask(lender, bytes(MAX_BODY + 1), None)[0] == 413
    for wrong in (b"", b"\xc1", msgspec.msgpack.encode([]), msgspec.msgpack.encode([b"short"])):
        assert ask(lender, wrong, passes.issue(lender.url, wrong, now))[0] == 400, wrong
    many = msgspec.msgpack.encode([b"x" * 16] * (MAX_NAMES + 1))
    assert len(many) < MAX_BODY
    assert ask(lender, many, passes.issue(lender.url, many, now))[0] == 400


def test_who_says_nothing_takes_nobodys_place(lender: Lender) -> None:
    """One that begins a request and never ends it is closed after a while, and one address has only so many."""
    passes, body = Passes(SECRET), encode_names(NAMES[:1])
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", lender.port), timeout=60))
        first.sendall(b"POST ")
        others = [
            stack.enter_context(socket.create_connection(("127.0.0.1", lender.port), timeout=60))
            for _ in range(MAX_EACH)
        ]
        assert is_closed(others[-1])
        assert is_closed(first)
        assert ask(lender, body, passes.issue(lender.url, body, SystemClock().wall()))[0] == 200


def is_closed(connection: socket.socket) -> bool:
    """By the other side, after a while."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_only_so_many_are_answered_at_once(lender: Lender) -> None:
    """Who does not read what he asked for keeps his place; the fifth is told to look elsewhere."""
    name = b"L" * 16
    lender.has(name, secrets.token_bytes(1 << 20) * 24)
    passes, now, body = Passes(SECRET), SystemClock().wall(), encode_names([name])
    slow: list[http.client.HTTPConnection] = []
    for _ in range(4):
        connection = http.client.HTTPConnection("127.0.0.1", lender.port, timeout=10)
        connection.request("POST", PATH, body, {"authorization": passes.issue(lender.url, body, now)})
        assert connection.getresponse().status == 200
        slow.append(connection)
    assert ask(lender, body, passes.issue(lender.url, body, now))[0] == 503
    for connection in slow:
        connection.close()
    tier = tier_of()
    while not read(tier, lender.url, names=[name]):
        tier = tier_of()
