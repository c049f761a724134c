"""Good, bad and disconnecting clients at once: for scripts/soak-mixed.py, and in a shorter form for the tests."""

import collections
import json
import random
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import hostile_inputs as inputs
from hostile import segments
from traffic import Pinger, ask, memory, percentiles, shown

# What must be zero once all clients are gone.
GAUGES = ["requests_running", "requests_waiting", "input_memory_bytes", "body_bytes"]


def gauges(address):
    """The values of /metrics by name without prefix; metrics with labels are left out."""
    text = ask(address, "GET", "/metrics").body.decode()
    found = re.findall(r"^ahi_inference_(\w+) ([0-9.e+]+)$", text, re.M)
    return {name: float(value) for name, value in found}


def bad_bodies(largest):
    """Hostile bodies that are small enough to be sent many times."""
    return [made for made in inputs.all_inputs() if len(made[2]) <= largest]


class Mixed:
    """Clients of all kinds on one server, until they are told to stop."""

    def __init__(self, address, good, bodies, seed):
        self.address, self.good, self.bodies = address, {"inputs": [good]}, bodies
        place = urlsplit(address)
        self.place = (place.hostname, place.port)
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.answers = collections.Counter()
        self.problems = []
        self.lock = threading.Lock()
        self.expected = segments(ask(address, "POST", "/invocations", self.good))

    def note(self, who, status, code=""):
        with self.lock:
            self.answers[f"{who} {status} {code}".strip()] += 1

    def good_client(self):
        while not self.stop.is_set():
            answer = ask(self.address, "POST", "/invocations", self.good)
            if answer.status == 200 and segments(answer) != self.expected:
                self.problems.append("a wrong answer")
            elif answer.status not in (200, 503):
                self.problems.append(f"a good request: {answer.status} {answer.body[:200]}")
            self.note("good", answer.status)
            self.stop.wait(self.random.random())

    def bad_client(self):
        while not self.stop.is_set():
            name, media, body = self.random.choice(self.bodies)
            status, code = self.raw(body, media)
            if status >= 500 and status not in (503, 507):
                self.problems.append(f"{name}: {status} {code}")
            self.note("bad", status, code)
            self.stop.wait(self.random.random())

    def raw(self, body, media):
        import http.client
        connection = http.client.HTTPConnection(*self.place, timeout=60)
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": media})
            response = connection.getresponse()
            content = response.read()
            try:
                return response.status, json.loads(content)["error"]["code"]
            except (ValueError, KeyError, TypeError):
                return response.status, ""
        except OSError:
            return -1, ""
        finally:
            connection.close()

    def leave(self, who, length):
        """Sends `length(whole)` bytes of a good request again and again, and disconnects a moment later."""
        body = json.dumps(self.good).encode()
        whole = (f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        while not self.stop.is_set():
            try:
                with socket.create_connection(self.place, 10) as connection:
                    connection.sendall(whole[: length(len(whole))])
                    time.sleep(self.random.random())
                self.note(who, "")
            except OSError:
                self.note(who, "refused")
            self.stop.wait(self.random.random() * 0.5)

    def fleeing_client(self):
        """Disconnects after any byte of its request."""
        self.leave("fled", lambda whole: self.random.randrange(1, whole))

    def leaving_client(self):
        """Disconnects while its request runs."""
        self.leave("left", lambda whole: whole)

    def run(self, seconds):
        self.stop.clear()
        kinds = [self.good_client] * 2 + [self.bad_client] * 2 + [self.fleeing_client, self.leaving_client]
        threads = [threading.Thread(target=kind) for kind in kinds]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()


def settled(server, seconds=60):
    """Gauges and memory once all work has ended and the server has released unused memory."""
    end = time.monotonic() + seconds
    while any(gauges(server.address).get(name, 0) for name in GAUGES) and time.monotonic() < end:
        time.sleep(0.5)
    # Memory is released after the server has been idle for a while.
    time.sleep(15)
    return gauges(server.address), memory(server.process)


def soak(server, good, seconds, warm, largest=1 << 20, seed=1):
    """Runs the soak test and prints the results; returns the problems."""
    mixed = Mixed(server.address, good, bad_bodies(largest), seed)
    mixed.run(warm)
    first, before = settled(server)
    alone = ask(server.address, "POST", "/invocations", mixed.good).seconds
    mixed.answers.clear()
    with Pinger(server.address, 0.05) as pinger:
        mixed.run(seconds)
    last, after = settled(server)
    again = ask(server.address, "POST", "/invocations", mixed.good).seconds
    problems = list(mixed.problems)
    for name in GAUGES:
        if last.get(name, 0) != 0:
            problems.append(f"{name} is {last[name]} in the end")
    if last["work_memory_bytes"] != first["work_memory_bytes"]:
        problems.append(f"work_memory_bytes: {first['work_memory_bytes']}, then {last['work_memory_bytes']}")
    if pinger.statuses != {200}:
        problems.append(f"/ping answered {pinger.statuses}")
    print(f"{seconds} s; answers: {dict(sorted(mixed.answers.items()))}")
    print(f"/ping, {len(pinger.seconds)} times: {shown(pinger.seconds)}")
    print(f"memory: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after ({after / before:.3f})")
    print(f"a good request by itself: {alone:.2f} s before, {again:.2f} s after")
    print("gauges in the end: " + ", ".join(f"{name} {last.get(name, 0):.0f}" for name in [*GAUGES, "work_memory_bytes"]))
    return problems, after / before, percentiles(pinger.seconds)["p99"]
