"""One generator for many questions draws what a new one for each would."""

import random

import pytest

from data_builders.clips import seeded
from data_builders.draws import LARGE_POOL_SIZE, POOL_SIZE, Draws


def all_draws(rng: random.Random) -> list:
    """Every kind of draw, of sizes on both sides of where `random` changes its way."""
    sizes = (1, 2, 3, 4, 7, 8, POOL_SIZE, POOL_SIZE + 1, LARGE_POOL_SIZE, LARGE_POOL_SIZE + 1)
    drawn: list = [rng.random(), rng.choice("abc"), rng.randrange(1), rng.randint(1, 4), rng.uniform(0, 2)]
    drawn += [rng.choice(range(size)) for size in sizes] + [rng.randrange(size) for size in sizes]
    drawn += [rng.sample(range(size), number) for size in sizes for number in (0, 1, 3, 5, 6, size) if number <= size]
    shuffled = list(range(30))
    rng.shuffle(shuffled)
    return [*drawn, shuffled, rng.getrandbits(40), rng.gauss(0, 1), rng.choices("abc", k=4)]


def test_draws_are_those_of_a_generator_of_their_own():
    draws = Draws()
    for number in range(40):
        draws.begin("a prefix:train", "clip", number)
        assert all_draws(draws) == all_draws(seeded("a prefix", "train", "clip", number))


@pytest.mark.parametrize(
    "first",
    [
        lambda rng: rng.sample([5, 6, 7], 2),
        lambda rng: rng.choice([5, 6, 7]),
        lambda rng: rng.randrange(9),
        lambda rng: rng.random(),
        lambda rng: rng.getrandbits(7),
        lambda rng: rng.shuffle([5, 6, 7]),
    ],
)
def test_whatever_is_drawn_first_is_of_the_names_that_were_begun(first):
    draws = Draws()
    for name in ("one", "two"):
        draws.begin(name)
        assert draws.untouched
        fresh = seeded(name)
        assert first(draws) == first(fresh)
        assert not draws.untouched
        assert draws.random() == fresh.random()


def test_what_random_refuses_is_refused():
    draws = Draws()
    draws.begin("name")
    for refused in (lambda: draws.choice([]), lambda: draws.randrange(0), lambda: draws.sample([1], 2)):
        with pytest.raises((IndexError, ValueError)):
            refused()
