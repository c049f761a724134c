"""Clients that mean harm, or behave as if they did, and what they saw.

Each function takes the host and port of a server, does its worst within a bounded time, and returns a `Seen`: the
statuses of the answers (0 if a connection failed, -1 if it ended without an answer), error codes, and seconds.
None of them checks anything: that is up to the caller.

`valid` is a request that the server answers, as JSON text or an object.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

JSON = "application/json"
LINES = "application/jsonlines"


@dataclass
class Seen:
    """What an attack saw."""

    statuses: Counter = field(default_factory=Counter)
    codes: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    # Anything else worth knowing, by name.
    details: dict = field(default_factory=dict)

    def add(self, status, body=b""):
        self.statuses[status] += 1
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.codes[json.loads(body)["error"]["code"]] += 1


@contextlib.contextmanager
def timed():
    seen, started = Seen(), time.monotonic()
    try:
        yield seen
    finally:
        seen.seconds = time.monotonic() - started


def connect(host, port, timeout=10):
    with contextlib.suppress(OSError):
        return socket.create_connection((host, port), timeout)


def connections(host, port, count):
    """Up to `count` connections: those that could be opened."""
    return [made for made in (connect(host, port) for _ in range(count)) if made]


def head(length, media=JSON, path="/invocations", method="POST", close=True):
    lines = [f"{method} {path} HTTP/1.1", "Host: hostile", f"Content-Type: {media}"]
    lines += [f"Content-Length: {length}"] if length is not None else []
    lines += ["Connection: close"] if close else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def text(valid):
    return (valid if isinstance(valid, str) else json.dumps(valid)).encode()


def answer(connection, seconds):
    """Status and body of the answer on a connection, read for at most `seconds`."""
    received, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        connection.settimeout(max(0.01, until - time.monotonic()))
        try:
            part = connection.recv(1 << 20)
        except OSError:
            break
        if not part:
            break
        received += part
        start, found, body = received.partition(b"\r\n\r\n")
        if found and (length := _length(start)) is not None and len(body) >= length:
            break
    if not received.startswith(b"HTTP/1.1 "):
        return -1, b""
    return int(received[9:12]), received.partition(b"\r\n\r\n")[2]


def _length(start):
    for line in start.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return None


def send(connection, chunks):
    """Sends chunks while they are accepted; returns the number of bytes sent."""
    sent = 0
    try:
        for chunk in chunks:
            connection.sendall(chunk)
            sent += len(chunk)
    except OSError:
        pass
    return sent


def post(host, port, chunks, length, media=JSON, seconds=60):
    """One request with its body in chunks. Reads while it sends, so that a refusal is seen."""
    connection = connect(host, port)
    if connection is None:
        return 0, b""
    with connection:
        connection.settimeout(seconds)
        sending = threading.Thread(
            target=send, args=(connection, (part for parts in ([head(length, media)], chunks) for part in parts)), daemon=True
        )
        sending.start()
        status, body = answer(connection, seconds)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sending.join(5)
    return status, body


def ask(host, port, path="/ping", seconds=10):
    """Status and seconds of a GET."""
    started = time.monotonic()
    connection = connect(host, port, seconds)
    if connection is None:
        return 0, time.monotonic() - started
    with connection:
        send(connection, [head(None, path=path, method="GET")])
        status, _ = answer(connection, seconds)
    return status, time.monotonic() - started


def _probe(host, port, seen, rounds=5):
    """Polls /ping from outside during an attack."""
    asked = [ask(host, port) for _ in range(rounds)]
    seen.details["ping"] = Counter(status for status, _ in asked)
    seen.details["ping_seconds"] = max(seconds for _, seconds in asked)


def _is_closed(connection):
    """Whether the server has closed the connection."""
    connection.settimeout(0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except (BlockingIOError, TimeoutError):
        return False
    except OSError:
        return True


# Headers and connections


def half_sent_headers(host, port, valid=None, count=2000, hold=3.0):
    """Many connections that start a request and never finish it."""
    with timed() as seen, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(c) for c in connections(host, port, count)]
        begun = sum(bool(send(c, [b"POST /invocations HTTP/1.1\r\nHost: hos"])) for c in opened)
        seen.details |= {"opened": len(opened), "begun": begun}
        _probe(host, port, seen)
        time.sleep(hold)
        seen.details["closed"] = sum(map(_is_closed, opened))
    return seen


def silent_connections(host, port, valid=None, count=2000, hold=3.0):
    """Many connections that send nothing at all."""
    with timed() as seen, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(c) for c in connections(host, port, count)]
        seen.details["opened"] = len(opened)
        _probe(host, port, seen)
        time.sleep(hold)
        seen.details["closed"] = sum(map(_is_closed, opened))
    return seen


def dripping_headers(host, port, valid=None, count=100, seconds=15.0):
    """Headers that arrive a byte at a time and never end."""
    with timed() as seen, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(c) for c in connections(host, port, count)]
        for connection in opened:
            send(connection, [b"GET /ping HTTP/1.1\r\nX: "])
        until = time.monotonic() + seconds
        left = opened
        while left and time.monotonic() < until:
            left = [c for c in left if not _is_closed(c) and send(c, [b"x"])]
            time.sleep(0.25)
        seen.details |= {"opened": len(opened), "closed": len(opened) - len(left)}
        _probe(host, port, seen)
    return seen


def endless_headers(host, port, valid=None, megabytes=16):
    """One request with headers larger than any limit."""
    with timed() as seen:
        connection = connect(host, port)
        if connection is None:
            seen.add(0)
            return seen
        with connection:
            lines = (b"X-%d: %s\r\n" % (i, b"x" * 1000) for i in range(megabytes * 1000))
            seen.details["sent"] = send(connection, [b"GET /ping HTTP/1.1\r\nHost: hostile\r\n", *lines])
            seen.add(*answer(connection, 10))
        _probe(host, port, seen)
    return seen


# Uploads


def idle_uploads(host, port, valid=None, count=50, announced=1 << 30, hold=3.0):
    """Uploads that announce a large body, send one byte, and stop. Meanwhile `valid` is sent once."""
    with timed() as seen, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(c) for c in connections(host, port, count)]
        for connection in opened:
            send(connection, [head(announced, "application/zip"), b"P"])
        _probe(host, port, seen)
        if valid is not None:
            body = text(valid)
            status, _ = post(host, port, [body], len(body))
            seen.details["valid"] = status
        time.sleep(hold)
        for connection in opened:
            if _is_closed(connection) or _has_answer(connection):
                seen.add(*answer(connection, 1))
    return seen


def _has_answer(connection):
    connection.settimeout(0)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def hoarding_upload(host, port, valid=None, announced=1 << 30, held=900 << 20, hold=3.0):
    """One upload that sends almost as much as it may, then stops."""
    with timed() as seen:
        connection = connect(host, port)
        if connection is None:
            seen.add(0)
            return seen
        with connection:
            part = bytes(1 << 20)
            connection.settimeout(20)
            send(connection, [head(announced, "application/zip")])
            seen.details["sent"] = send(connection, (part for _ in range(held >> 20)))
            _probe(host, port, seen)
            if valid is not None:
                body = text(valid)
                seen.details["valid"], _ = post(host, port, [body], len(body))
            time.sleep(hold)
    return seen


def slow_drips(host, port, valid=None, count=50, seconds=15.0):
    """Uploads of a few bytes a second."""
    with timed() as seen, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(c) for c in connections(host, port, count)]
        for connection in opened:
            send(connection, [head(1 << 20)])
        until = time.monotonic() + seconds
        left = list(opened)
        while left and time.monotonic() < until:
            for connection in list(left):
                if _has_answer(connection) or _is_closed(connection):
                    seen.add(*answer(connection, 1))
                    left.remove(connection)
                else:
                    send(connection, [b" "])
            time.sleep(0.25)
        seen.details |= {"opened": len(opened), "left": len(left)}
        _probe(host, port, seen)
    return seen


def unread_answers(host, port, valid, count=20, hold=3.0):
    """Good requests whose answers are never read."""
    body = text(valid)
    with timed() as seen, contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            plain = stack.enter_context(socket.socket())
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.settimeout(10)
            with contextlib.suppress(OSError):
                plain.connect((host, port))
                send(plain, [head(len(body)), body])
                opened.append(plain)
        seen.details["opened"] = len(opened)
        time.sleep(hold)
        _probe(host, port, seen)
    return seen


def hang_ups(host, port, valid, count=300, pause=0.005):
    """Clients that disconnect after sending half of the body or all of it, at once or a little later."""
    body = text(valid)
    with timed() as seen:
        for i in range(count):
            connection = connect(host, port)
            if connection is None:
                seen.add(0)
                continue
            with connection:
                cut = len(body) if i % 3 else len(body) // 2
                send(connection, [head(len(body)), body[:cut]])
                time.sleep(pause * (i % 5))
        _probe(host, port, seen)
    return seen


# Bodies that cost more than their size


def _flood(host, port, pattern, size, media, first=b"", last=b"", seconds=60):
    """A body that repeats one pattern."""
    part = pattern * max(1, (1 << 20) // len(pattern))
    whole, rest = divmod(max(0, size - len(first) - len(last)), len(part))
    rest -= rest % len(pattern)
    length = len(first) + whole * len(part) + rest + len(last)

    def chunks():
        yield first
        for _ in range(whole):
            yield part
        yield part[:rest] + last

    with timed() as seen:
        status, body = post(host, port, chunks(), length, media, seconds)
        seen.add(status, body)
        seen.details |= {"bytes": length, "answered": len(body)}
        if media == LINES and status == 200:
            for line in body.splitlines():
                with contextlib.suppress(ValueError, KeyError):
                    seen.codes[json.loads(line).get("error", {}).get("code", "ok")] += 1
    return seen


def tiny_lines(host, port, valid=None, size=64 << 20):
    return _flood(host, port, b"1\n", size, LINES)


def as_many_lines_as_may_be(host, port, valid=None, count=100_000):
    """Each line is wrong, and each is answered."""
    return _flood(host, port, b"{}\n", 3 * count, LINES)


def one_huge_line(host, port, valid=None, size=64 << 20):
    return _flood(host, port, b" ", size, LINES, last=b"1")


def blank_lines(host, port, valid=None, size=64 << 20):
    return _flood(host, port, b"\n", size, LINES)


def lines_behind_blank_ones(host, port, valid, size=64 << 20):
    """A good request after blank lines."""
    return _flood(host, port, b"\n", size, LINES, last=text(valid) + b"\n")


def many_inputs(host, port, valid=None, size=25 << 20):
    return _flood(host, port, b"{},", size, JSON, first=b'{"inputs":[', last=b"{}]}")


def many_good_inputs(host, port, valid, size=25 << 20):
    return _flood(host, port, text(valid) + b",", size, JSON, first=b'{"inputs":[', last=text(valid) + b"]}")


def many_images(host, port, valid=None, size=25 << 20):
    return _flood(host, port, b"{},", size, JSON, first=b'{"images":[', last=b"{}]}")


def many_outputs(host, port, valid=None, size=25 << 20):
    return _flood(host, port, b'"nifti",', size, JSON, first=b'{"outputs":[', last=b'"nifti"]}')


def long_text(host, port, valid=None, size=25 << 20):
    return _flood(host, port, b"a", size, JSON, first=b'{"imageSetId":"', last=b'"}')


def deep_json(host, port, valid=None, size=25 << 20):
    return _flood(host, port, b"[", size, JSON)


def many_bodies(host, port, valid=None, count=40, size=24 << 20, seconds=60):
    """Concurrent bodies, each as large as JSON may be."""
    with timed() as seen:
        lock = threading.Lock()

        def one():
            status, body = post(host, port, (bytes([32]) * (1 << 20) for _ in range(size >> 20)), size, seconds=seconds)
            with lock:
                seen.add(status, body)

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        _probe(host, port, seen)
        for thread in threads:
            thread.join()
    return seen


# Stopping


def sigterm_in_lines(host, port, valid, process, lines=8, after=0.5, seconds=60):
    """Sends SIGTERM to the process (an object with `pid`, or its number) while it works on lines. `whole` says
    whether the answer had a report for each line or was a plain 503. `late` is the status for a request that was
    still being sent."""
    body = b"\n".join([text(valid)] * lines)
    with timed() as seen:
        late = connect(host, port)
        if late:
            send(late, [head(1 << 20, LINES), b"{"])
        working = {}

        def work():
            working["answer"] = post(host, port, [body], len(body), LINES, seconds)

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(after)
        seen.details["was_done"] = not thread.is_alive()
        os.kill(getattr(process, "pid", process), signal.SIGTERM)
        thread.join(seconds)
        status, answered = working.get("answer", (-1, b""))
        seen.add(status, answered)
        reports = errors = 0
        if status == 200:
            for line in answered.splitlines():
                if "error" in json.loads(line):
                    errors += 1
                else:
                    reports += 1
        seen.details |= {"reports": reports, "errors": errors}
        seen.details["whole"] = status == 503 or (status == 200 and (reports, errors) == (lines, 0))
        if late:
            with late:
                seen.details["late"] = answer(late, 10)[0]
    return seen


# All of them, for callers that run them in turn: those that need no good request, and those that do.
ALONE = (
    half_sent_headers, silent_connections, dripping_headers, endless_headers, idle_uploads, hoarding_upload, slow_drips,
    tiny_lines, as_many_lines_as_may_be, one_huge_line, blank_lines, many_inputs, many_images, many_outputs, long_text,
    deep_json, many_bodies,
)
WITH_A_REQUEST = (unread_answers, hang_ups, lines_behind_blank_ones, many_good_inputs)
