"""Hostile clients against the program, on a smaller scale than in scripts/hostile.py."""

import json

import pytest

import hostile_clients as hostile
import tiny
from local import emulate, post, serve
from urllib.parse import urlsplit


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def served(images, tmp_path):
    """A server with short limits, and where it listens."""
    model = tiny.bundle(tmp_path / "model", 0)
    limits = {
        "HEADER_TIMEOUT": "2", "TRANSFER_TIMEOUT": "2", "BODY_WAIT": "1", "MAX_CONNECTIONS": "100",
        "MAX_BODY_BYTES": str(64 << 20),
    }
    with emulate(images.store) as local, serve(model, local.address, **limits) as server:
        place = urlsplit(server.address)
        yield server, place.hostname, place.port


def alive(server, images):
    status, _, answer = post(server.address, images.request)
    assert status == 200, answer
    assert tiny.check(json.loads(answer), images, 0) is None


def resident(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))


def test_connections_and_uploads_stop_nobody(served, images):
    server, host, port = served
    for attack, options in (
        (hostile.half_sent_headers, {"count": 500, "hold": 0}),
        (hostile.silent_connections, {"count": 500, "hold": 0}),
        (hostile.dripping_headers, {"count": 30, "seconds": 6}),
        (hostile.endless_headers, {"megabytes": 2}),
        (hostile.idle_uploads, {"count": 50, "hold": 3}),
        (hostile.hoarding_upload, {"announced": 60 << 20, "held": 59 << 20, "hold": 0}),
        (hostile.slow_drips, {"count": 30, "seconds": 8}),
        (hostile.unread_answers, {"count": 5, "hold": 0.5}),
        (hostile.hang_ups, {"count": 100}),
    ):
        seen = attack(host, port, images.request, **options)
        print(attack.__name__, seen)
        assert set(seen.details["ping"]) == {200}, (attack.__name__, seen)
        assert seen.details["ping_seconds"] < 2, (attack.__name__, seen)
        assert seen.details.get("valid", 200) == 200, (attack.__name__, seen)
        if attack is hostile.dripping_headers:
            assert seen.details["closed"] == seen.details["opened"]
        if attack is hostile.idle_uploads or attack is hostile.slow_drips:
            assert set(seen.codes) == {"request_timeout"} and seen.statuses[408] >= 30, seen
        alive(server, images)


def test_floods_cost_no_more_than_their_size(served, images):
    server, host, port = served
    alive(server, images)
    before = resident(server)
    for attack, options, expected in (
        (hostile.tiny_lines, {"size": 32 << 20}, (413, "payload_too_large")),
        (hostile.one_huge_line, {"size": 32 << 20}, (200, "payload_too_large")),
        (hostile.blank_lines, {"size": 32 << 20}, (400, "invalid_request")),
        (hostile.lines_behind_blank_ones, {"size": 32 << 20}, (413, "payload_too_large")),
        (hostile.many_inputs, {}, (400, "invalid_request")),
        (hostile.many_good_inputs, {}, (400, "invalid_request")),
        (hostile.many_images, {}, (400, "invalid_request")),
        (hostile.many_outputs, {}, (400, "invalid_request")),
        (hostile.long_text, {}, (400, "invalid_request")),
        (hostile.deep_json, {}, (400, "invalid_request")),
    ):
        seen = attack(host, port, images.request, **options)
        print(attack.__name__, seen)
        assert set(seen.statuses) == {expected[0]} and set(seen.codes) == {expected[1]}, (attack.__name__, seen)
        assert seen.seconds < 10, (attack.__name__, seen)
    alive(server, images)
    grown = (resident(server) - before) >> 20
    print(f"{grown} MiB more in memory")
    assert grown < 256


def test_sigterm_in_the_middle_of_lines_is_the_truth(served, images):
    server, host, port = served
    seen = hostile.sigterm_in_lines(host, port, images.request, server.process, lines=200, after=0.2)
    print(seen)
    assert seen.details["whole"] and seen.details["late"] == 503, seen
    assert server.process.wait(40) in (0, 3)
