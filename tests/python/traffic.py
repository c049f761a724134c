"""Clients that send many requests at once, and what they saw."""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit


@dataclass
class Answer:
    """One answer; status 0 if the connection failed, -1 if it ended without an answer."""

    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    seconds: float = 0.0

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The error code."""
        return self.json()["error"]["code"]


def ask(server, method, path, body=None, timeout=120, **headers):
    """One request on its own connection."""
    place = urlsplit(server)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    data = None if body is None else json.dumps(body)
    named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    started = time.perf_counter()
    try:
        try:
            connection.connect()
        except OSError:
            return Answer(0)
        try:
            connection.request(method, path, data, named if data else {})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            return Answer(-1, seconds=time.perf_counter() - started)
        names = {k.lower(): v for k, v in response.getheaders()}
        return Answer(response.status, content, names, time.perf_counter() - started)
    finally:
        connection.close()


def model_path(name):
    return f"/models/{quote(name, safe='')}"


def memory(process):
    """Resident memory of a process, in bytes."""
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def percentiles(values):
    """p50, p95, p99 and the largest."""
    ordered = sorted(values)
    at = lambda p: ordered[min(len(ordered) - 1, int(p * len(ordered)))]
    return {"p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": ordered[-1]}


def shown(values, unit=1e3, name="ms"):
    return ", ".join(f"{key} {value * unit:.1f} {name}" for key, value in percentiles(values).items())


def together(count, work):
    """Runs `work(i)` on `count` threads; the first error of any of them is raised here."""
    errors = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:  # noqa: BLE001 - handed on below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Pinger:
    """Polls /ping and records how long each answer took."""

    def __init__(self, server, pause=0.02):
        self.server, self.pause = server, pause
        self.seconds, self.statuses = [], set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        # At least once, however soon it is stopped.
        while True:
            answer = ask(self.server, "GET", "/ping", timeout=10)
            self.seconds.append(answer.seconds)
            self.statuses.add(answer.status)
            if self.stop.wait(self.pause):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
