"""A reverse proxy on loopback that breaks transfers, in front of the local HealthImaging or S3.

Which transfers break is drawn from a seed, the request and how often it has come. A run can thus be repeated,
whatever the order of the requests.
"""

import asyncio
import collections
import hashlib
import json
import random
import re
import socket
import struct
import threading
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import urlsplit

# An error of each service: status, code, message.
REFUSALS = {
    "throttle": {"ahi": (429, "ThrottlingException", "Rate exceeded"), "s3": (503, "SlowDown", "slower")},
    "5xx": {"ahi": (500, "InternalServerException", "oh"), "s3": (500, "InternalError", "oh")},
    "unavailable": {"ahi": (503, "ServiceUnavailable", "oh"), "s3": (503, "ServiceUnavailable", "oh")},
    "denied": {"ahi": (403, "AccessDeniedException", "no"), "s3": (403, "AccessDenied", "no")},
    "expired": {"ahi": (403, "ExpiredTokenException", "old"), "s3": (400, "ExpiredToken", "old")},
    "unknown-key": {"ahi": (403, "UnrecognizedClientException", "who"), "s3": (403, "InvalidAccessKeyId", "who")},
    "skew": {
        "ahi": (403, "InvalidSignatureException", "Signature expired: 20200101T000000Z is now earlier than it"),
        "s3": (403, "RequestTimeTooSkewed", "The difference between the times is too large"),
    },
    "412": {"ahi": (412, "PreconditionFailed", "other"), "s3": (412, "PreconditionFailed", "other")},
}
# Broken bodies and connections.
BROKEN = ("reset", "truncate", "short", "flip", "swap", "stall", "silence", "slow")


@dataclass
class Fault:
    """What happens to a share of the transfers whose `METHOD path` matches."""

    kind: str
    rate: float = 1.0
    where: str = ""
    seconds: float = 10.0
    # How many attempts of the same transfer are hit; 0 means all.
    times: int = 0

    def __post_init__(self):
        assert self.kind in REFUSALS or self.kind in BROKEN, self.kind


class Faulty:
    """The proxy; `faults` can be set at any time. Stopped at the end of a `with` block."""

    def __init__(self, upstream, service, seed=1):
        place = urlsplit(upstream)
        self.upstream = (place.hostname, place.port)
        self.service, self.seed = service, seed
        self.faults = []
        self.injected = collections.Counter()
        self.requests = collections.Counter()
        self.seen = collections.Counter()
        self.latest = {}
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(started,), daemon=True)
        self.thread.start()
        started.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.main.cancel)
        self.thread.join(10)

    def run(self, started):
        self.main = self.loop.create_task(self.serve(started))
        try:
            self.loop.run_until_complete(self.main)
        except asyncio.CancelledError:
            pass
        self.loop.run_until_complete(self.end())
        self.loop.close()

    async def end(self):
        """Closes all connections."""
        open_still = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_still:
            task.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)

    async def serve(self, started):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=1 << 20, backlog=512)
        self.address = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        started.set()
        await asyncio.Event().wait()

    async def connection(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self.answer(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, head, reader, writer):
        names = headers_of(head)
        if "100-continue" in names.get("expect", ""):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await body_of(names, reader)
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        what = f"{method} {path}"
        operation = path.split("?")[0].rsplit("/", 1)[-1] if self.service == "ahi" else method
        self.requests[operation] += 1
        fault, chance = self.drawn(what, body)
        if fault and fault.kind == "reset":
            return reset(writer)
        if fault and fault.kind in REFUSALS:
            writer.write(self.refusal(fault.kind, method))
            return await writer.drain()
        if fault and fault.kind == "silence":
            await asyncio.sleep(fault.seconds)
            return reset(writer)
        status, lines, content = await self.forward(head, body, method)
        if fault and fault.kind == "flip" and content:
            bit = chance.randrange(8 * len(content))
            content = bytearray(content)
            content[bit // 8] ^= 1 << bit % 8
        if fault and fault.kind == "swap":
            content = self.latest.get(operation, content)
        elif method != "HEAD":
            self.latest[operation] = bytes(content)
        if fault and fault.kind == "short":
            content = content[: len(content) // 2]
        if method != "HEAD":
            lines.append(b"content-length: %d" % len(content))
        writer.write(b"\r\n".join([status, *lines, b"", b""]))
        if method == "HEAD":
            return await writer.drain()
        half = len(content) // 2
        if fault and fault.kind in ("truncate", "stall"):
            writer.write(bytes(content[:half]))
            await writer.drain()
            if fault.kind == "stall":
                await asyncio.sleep(fault.seconds)
            return reset(writer)
        if fault and fault.kind == "slow":
            for begins in range(0, len(content), max(1, len(content) // 20)):
                writer.write(bytes(content[begins : begins + max(1, len(content) // 20)]))
                await writer.drain()
                await asyncio.sleep(fault.seconds / 20)
            return None
        writer.write(bytes(content))
        return await writer.drain()

    def drawn(self, what, body):
        """The fault for this transfer, if any, and the random generator for further draws."""
        digest = hashlib.sha256(body).hexdigest()
        self.seen[what, digest] += 1
        chance = random.Random(f"{self.seed} {what} {digest} {self.seen[what, digest]}")
        for fault in self.faults:
            met = not fault.times or self.seen[what, digest] <= fault.times
            if met and re.search(fault.where, what) and chance.random() < fault.rate:
                self.injected[fault.kind] += 1
                return fault, chance
        return None, chance

    def refusal(self, kind, method):
        status, code, message = REFUSALS[kind][self.service]
        if self.service == "ahi":
            body, more = json.dumps({"message": message}), f"x-amzn-errortype: {code}\r\n"
        else:
            body, more = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", ""
        body = "" if method == "HEAD" else body
        return (f"HTTP/1.1 {status} Refused\r\n{more}date: {formatdate(usegmt=True)}\r\n"
                f"content-length: {len(body)}\r\n\r\n{body}").encode()

    async def forward(self, head, body, method):
        """Status line, headers (except those about the body's length) and body of the real answer."""
        reader, writer = await asyncio.open_connection(*self.upstream, limit=1 << 20)
        try:
            writer.write(head + body)
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            while answer.startswith(b"HTTP/1.1 100"):
                answer = await reader.readuntil(b"\r\n\r\n")
            content = b"" if method == "HEAD" else await body_of(headers_of(answer), reader)
        finally:
            writer.close()
        status, *lines = answer.rstrip(b"\r\n").split(b"\r\n")
        of_length = (b"transfer-encoding:", b"connection:") + (() if method == "HEAD" else (b"content-length:",))
        return status, [line for line in lines if not line.lower().startswith(of_length)], content


def reset(writer):
    """Resets a connection, so that it does not look like an orderly close."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError


def headers_of(head):
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}


async def body_of(names, reader):
    if "chunked" in names.get("transfer-encoding", ""):
        pieces = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(pieces)
    return await reader.readexactly(int(names.get("content-length", 0)))
