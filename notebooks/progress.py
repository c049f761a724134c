"""Progress bars, also those of a request, from the events of its stream."""

import sys

from tqdm import tqdm


FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"


def bar(items=None, **options):
    """A bar of text, which notebooks without widgets show, too."""
    return tqdm(items, file=sys.stdout, ncols=80, bar_format=FORMAT, **options)


class Stages:
    """A bar for each stage of a request: `with Stages() as stages: endpoint.stream(request, progress=stages)`."""

    def __init__(self):
        self._seen = set()
        self._key = self._bar = None

    def __call__(self, event):
        if event["event"] == "queued":
            print(f"place {event['place']} in the queue")
        elif event["event"] == "progress":
            key = (event["input"], event["stage"])
            if key != self._key:
                # What comes late of a stage whose bar is closed.
                if key in self._seen:
                    return
                self._close()
                self._seen.add(key)
                self._key, self._bar = key, bar(total=event["total"], desc=f"{event['stage']:<11}")
            self._bar.total, self._bar.n = event["total"], event["done"]
            self._bar.refresh()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._close()

    def _close(self):
        if self._bar is not None:
            self._bar.close()
            self._bar = None
