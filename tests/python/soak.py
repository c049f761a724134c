"""Models loaded and unloaded by many clients at once: for scripts/soak.py, and in a shorter form for the tests."""

import collections
import queue
import random
import threading
import time

import tiny
from traffic import Pinger, ask, memory, model_path, shown, together

# What the contract lets a server answer while other clients load and unload the same model.
ALLOWED = {
    "load": {200, 409},
    "show": {200, 404},
    "invoke": {200, 404},
    "unload": {200, 404},
}


# Rounds before memory is measured.
WARM = 3


class Soak:
    """`models` models, each loaded and unloaded `times` times by `clients` clients."""

    def __init__(self, server, images, folder, models, clients):
        self.server, self.images, self.clients = server, images, clients
        # Names that would not do as paths: the server must accept any.
        self.names = [f"7f{number:02}/ä {number}?.tar.gz" for number in range(models)]
        self.folders = [tiny.bundle(folder / f"m{number}/model", number) for number in range(models)]
        self.statuses = collections.Counter()
        self.loads = collections.Counter()
        self.seconds = collections.defaultdict(list)
        self.problems = []
        self.lock = threading.Lock()

    def ask(self, what, number, method, path, body=None):
        answer = ask(self.server, method, path, body)
        with self.lock:
            self.statuses[what, answer.status] += 1
            self.seconds[what].append(answer.seconds)
            if answer.status not in ALLOWED[what]:
                self.problems.append(f"{what} of model {number}: {answer.status} {answer.body[:300]}")
        return answer

    def cycle(self, number):
        """Loads a model, uses it, unloads it; returns whether this client was the one that loaded it."""
        name = self.names[number]
        path = model_path(name)
        load = {"model_name": name, "url": str(self.folders[number].parent)}
        loaded = self.ask("load", number, "POST", "/models", load).status == 200
        shown = self.ask("show", number, "GET", path)
        if shown.status == 200 and shown.json() != {"modelName": name, "modelUrl": load["url"]}:
            self.problems.append(f"model {number} is shown as {shown.body}")
        for _ in range(2):
            answer = self.ask("invoke", number, "POST", f"{path}/invoke", self.images.request)
            wrong = answer.status == 200 and tiny.check(answer.json(), self.images, number)
            if wrong:
                self.problems.append(f"wrong answer of model {number}: {wrong}")
        self.ask("unload", number, "DELETE", path)
        return loaded

    def run(self, times, seed):
        """Loads and unloads every model `times` times, in random order."""
        jobs = [number for number in range(len(self.names)) for _ in range(times)]
        random.Random(seed).shuffle(jobs)
        waiting = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)

        def client(_):
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                # If another client had loaded it, it is still to be done.
                while not self.cycle(number):
                    pass
                with self.lock:
                    self.loads[number] += 1

        together(self.clients, client)


def soak(server, images, folder, models, times, clients):
    """Runs the soak test and prints the results; returns the problems, and memory before and after."""
    work = Soak(server.address, images, folder, models, clients)
    # Each thread's allocator arena grows to its final size.
    work.run(WARM, seed=0)
    before = memory(server.process)
    started = time.perf_counter()
    with Pinger(server.address) as pinger:
        work.run(times, seed=1)
    seconds = time.perf_counter() - started
    after = memory(server.process)
    if work.loads != {number: times + WARM for number in range(models)}:
        work.problems.append(f"loads: {work.loads}")
    if pinger.statuses != {200}:
        work.problems.append(f"ping answered {pinger.statuses}")
    if (left := ask(server.address, "GET", "/models").json()) != {"models": []}:
        work.problems.append(f"still loaded: {left}")
    statuses = {f"{what} {status}": count for (what, status), count in sorted(work.statuses.items())}
    print(f"{models} models, each loaded and unloaded {times} times by {clients} clients in {seconds:.0f} s")
    print(f"answers: {statuses}")
    for what, values in work.seconds.items():
        print(f"{what}: {shown(values)}")
    print(f"/ping, {len(pinger.seconds)} times: {shown(pinger.seconds)}")
    print(f"memory: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after ({after / before:.3f})")
    for problem in work.problems[:20]:
        print(f"PROBLEM: {problem}")
    return work.problems, before, after
