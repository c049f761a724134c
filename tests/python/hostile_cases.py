"""All hostile inputs: those of bytes, of clients, and of image sets."""

from urllib.parse import urlsplit

import hostile_clients as clients
import hostile_inputs as inputs
from hostile import BODIES, IMAGE_SETS, MEBIBYTES, Case, send

ANY = set(range(200, 600)) | {0, -1}

# Client behaviours and the acceptable statuses for each: 0 and -1 if the server closes a connection.
CLIENTS = [
    (clients.half_sent_headers, {200, 503}),
    (clients.silent_connections, {200, 503}),
    (clients.dripping_headers, {0, -1, 200, 408, 503}),
    (clients.endless_headers, {0, -1, 200, 431, 400, 503}),
    (clients.idle_uploads, {-1, 200, 408, 503}),
    (clients.hoarding_upload, {-1, 200, 408, 413, 503}),
    (clients.slow_drips, {-1, 200, 408, 503}),
    (clients.unread_answers, ANY),
    (clients.hang_ups, ANY),
    (clients.tiny_lines, {400, 413, 200, 503, -1}),
    (clients.one_huge_line, {400, 413, 200, 503, -1}),
    (clients.blank_lines, {400, 413, 200, 503, -1}),
    (clients.many_inputs, {400, 413, 503}),
    (clients.many_images, {400, 413, 503}),
    (clients.many_outputs, {400, 413, 503}),
    (clients.long_text, {400, 413, 503}),
    (clients.deep_json, {400, 413, 503}),
    (clients.many_bodies, {-1, 400, 413, 503, 408}),
]

# Attacks that take long by design.
LONG = {clients.slow_drips, clients.dripping_headers, clients.many_bodies, clients.idle_uploads, clients.hoarding_upload}


def of_client(attack, statuses):
    """A case of a client behaviour; each distinct answer is listed once."""

    def run(target):
        place = urlsplit(target.address)
        seen = attack(place.hostname, place.port, {"inputs": [target.good]})
        codes = " ".join(seen.codes)
        return [(status, codes) for status in seen.statuses] or [(200, "")]

    run.takes_long = attack in LONG
    # They send a gigabyte in total, which the memory for bodies can hold.
    mebibytes = 1200 if attack in (clients.hoarding_upload, clients.many_bodies) else MEBIBYTES
    return Case(attack.__name__.replace("_", " "), run, statuses, mebibytes=mebibytes)


def sigterm(target):
    place = urlsplit(target.address)
    seen = clients.sigterm_in_lines(
        place.hostname, place.port, {"inputs": [target.good]}, target.server.process
    )
    return [(status, " ".join(seen.codes)) for status in seen.statuses]


sigterm.takes_long = True


def same_archive(target):
    """The same archive again and again, as images of one input and as inputs of one request."""
    bucket = target.folder / "s3/bucket"
    bucket.mkdir(parents=True, exist_ok=True)
    (bucket / "a.zip").write_bytes(inputs.good_zip())
    one = {"s3Uri": "s3://bucket/a.zip"}
    import json
    images = json.dumps({"images": {f"i{n}": one for n in range(60)}}).encode()
    many = json.dumps({"inputs": [one] * 60}).encode()
    return [send(target, images, inputs.JSON), send(target, many, inputs.JSON)]


# Odd, but answered: an image with more data behind its pixels, which is not read, and lines that each have their
# own error.
ANSWERED = {"nested-after-pixel-data", "lines-nested"}


def of_bytes(name, content_type, data):
    def attack(target):
        return [send(target, data, content_type)]

    return Case(name, attack, {200}) if name in ANSWERED else Case(name, attack)


def cases():
    """All cases; bodies are generated on demand, since some are 64 MiB."""
    yield from IMAGE_SETS
    yield from BODIES
    for attack, statuses in CLIENTS:
        yield of_client(attack, statuses)
    yield Case("the same archive many times", same_archive, {200, 400, 413, 422, 503})
    yield Case("SIGTERM amid lines", sigterm, {200, 503}, ends=True)
    for made in inputs.all_inputs():
        yield of_bytes(*made)
