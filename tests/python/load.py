"""Many concurrent requests to one server: for scripts/load.py, and in a shorter form for the tests."""

import collections
import itertools
import json
import signal
import threading
import time

from traffic import Answer, Pinger, ask, shown, together


class Load:
    """Sends the same request again and again; every answer must be the same."""

    def __init__(self, server, request, path="/invocations"):
        self.server, self.request, self.path = server, request, path
        self.answers = []
        self.problems = []
        self.lock = threading.Lock()
        alone = ask(server.address, "POST", path, request)
        assert alone.status == 200, alone.body
        self.expected = segments(alone)

    def ask(self):
        answer = ask(self.server.address, "POST", self.path, self.request)
        problem = self.wrong(answer)
        with self.lock:
            self.answers.append(answer)
            if problem:
                self.problems.append(problem)
        return answer

    def wrong(self, answer):
        """What is wrong with an answer: anything but the right 200 or one of the stated refusals."""
        if answer.status == 200:
            return None if segments(answer) == self.expected else f"a wrong answer: {segments(answer)}"
        if answer.status == 503 and answer.code == "overloaded":
            after = answer.headers.get("retry-after", "")
            return None if after.isdigit() and int(after) > 0 else f"Retry-After is {after!r}"
        return f"{answer.status}: {answer.body[:200]}"

    def run(self, count, at_once):
        """`count` requests, `at_once` at a time; returns the seconds they took."""
        numbers = itertools.count()
        started = time.perf_counter()

        def client(_):
            while next(numbers) < count:
                self.ask()

        together(at_once, client)
        return time.perf_counter() - started

    def run_until_told_to_stop(self, before, at_once):
        """Sends SIGTERM after `before` answers; each client continues until it is refused.

        Returns the answers after the signal, counted by status, and the server's exit status.
        """
        told = threading.Event()
        enough = threading.Semaphore(0)
        after = collections.Counter()

        def client(i):
            if i == at_once:
                for _ in range(before):
                    enough.acquire()
                self.server.process.send_signal(signal.SIGTERM)
                told.set()
                return
            while True:
                answer = ask(self.server.address, "POST", self.path, self.request)
                enough.release()
                turned_away = answer.status == 0 or (answer.status == 503 and answer.code == "unavailable")
                problem = None if turned_away else self.wrong(answer)
                with self.lock:
                    self.answers.append(answer)
                    if turned_away and not told.is_set():
                        self.problems.append("turned away before the signal")
                    if problem:
                        self.problems.append(problem)
                    if told.is_set():
                        after[answer.status] += 1
                if turned_away:
                    return

        together(at_once + 1, client)
        return dict(after), self.server.process.wait(60)


def segments(answer: Answer):
    return [result["segments"] for result in answer.json()["results"]]


def finished(server):
    """How many inferences the server finished, according to its log."""
    lines = (json.loads(line) for line in server.log if line.startswith("{"))
    return sum(line.get("message") == "inference finished" for line in lines)


def load(server, request, count, at_once):
    """Runs the load and prints the results; returns the statuses and the problems."""
    work = Load(server, request)
    with Pinger(server.address) as pinger:
        seconds = work.run(count, at_once)
    statuses = collections.Counter(answer.status for answer in work.answers)
    done = [answer.seconds for answer in work.answers if answer.status == 200]
    print(f"{count} requests, {at_once} at a time, in {seconds:.1f} s: {dict(statuses)}")
    print(f"answered: {shown(done)}; {len(done) / seconds:.1f} a second")
    print(f"/ping, {len(pinger.seconds)} times: {shown(pinger.seconds)}")
    if pinger.statuses != {200}:
        work.problems.append(f"ping answered {pinger.statuses}")
    return statuses, work.problems


def load_and_stop(server, request, before, at_once):
    """Runs the load, sends SIGTERM in the middle and prints the results; returns the problems."""
    work = Load(server, request)
    after, code = work.run_until_told_to_stop(before, at_once)
    answered = 1 + sum(answer.status == 200 for answer in work.answers)
    time.sleep(0.5)  # Time for the last log lines to arrive.
    accepted = finished(server)
    print(f"SIGTERM after {before} answers, {at_once} at a time: {after} afterwards, exit status {code}")
    print(f"the server finished {accepted} requests, clients have {answered} answers")
    if code != 0:
        work.problems.append(f"exit status {code}")
    if accepted != answered:
        work.problems.append(f"{accepted} finished, {answered} answered")
    return work.problems
