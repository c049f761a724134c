"""Hostile inputs, a few of each kind; scripts/hostile.sh has all of them and more."""

import pytest

import hostile
import hostile_clients as clients
import hostile_inputs as inputs
from hostile_cases import ANSWERED, cases, of_client, same_archive
from hostile import Case
from local import ROOT, emulate, serve
from mixed import soak

# Each of these needs its own server, which takes seconds, so a few stand for their kinds.
IMAGE_SETS = ["pixels of 400 mm", "pixels of 60 mm", "frames of 65535 x 65535", "slices 10 m apart"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return hostile.Place(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def limit():
    with hostile.Limit() as made:
        yield made


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_image_sets_that_lie(place, limit, name):
    case = next(case for case in hostile.IMAGE_SETS if case.name == name)
    row = place.attack(case, limit.apply)
    assert not row.problems, row


def test_bodies_of_every_kind_on_one_server(place, limit):
    """All small bodies, one after another: each meets whatever the previous ones left behind."""
    bodies = [made for made in inputs.all_inputs() if len(made[2]) <= 4 << 20 and made[0] not in ANSWERED]
    assert len(bodies) > 30

    def attack(target):
        return [hostile.send(target, data, media) for _, media, data in bodies]

    attack.takes_long = True
    row = place.attack(Case("every small body", attack), limit.apply)
    assert not row.problems, row


@pytest.mark.parametrize("attack", [clients.half_sent_headers, clients.hang_ups])
def test_clients_that_mean_harm(place, limit, attack):
    case = of_client(attack, set(range(200, 600)) | {0, -1})
    row = place.attack(case, limit.apply)
    assert not row.problems, row


def test_one_archive_many_times(place, limit):
    row = place.attack(Case("the same archive", same_archive, {200, 400, 413, 422, 503}), limit.apply)
    assert not row.problems, row


def test_there_are_cases_of_every_kind():
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) and len(names) > 80


def test_mixed_clients_leave_nothing(place):
    with emulate(place.store) as ahi, serve(ROOT / "model/ct_phantom", ahi.address, LOG_LEVEL="error") as server:
        problems, growth, _ = soak(server, place.good, seconds=8, warm=4)
    assert not problems, problems
    assert growth < 1.5
