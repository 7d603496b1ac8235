"""The draws and cuts of a stage in plain lists, as they were first written: what `lalm.data.mixture` must equal."""

from __future__ import annotations

import hashlib
import math

import numpy as np


def rng_of(key):
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))


def passes_of(key, members, groups, cap):
    """Units of one source, pass after pass."""
    number = 0
    while True:
        rng = rng_of(f"{key}/{number}")
        shuffled = rng.permutation(len(members))
        if groups is None:
            yield from ([members[place]] for place in shuffled)
        else:
            by_clip = {}
            for place in shuffled:
                by_clip.setdefault(groups[members[place]], []).append(members[place])
            units = [group[i : i + cap] for group in by_clip.values() for i in range(0, len(group), cap)]
            yield from (units[unit] for unit in rng.permutation(len(units)))
        number += 1


def draws(sources, weights, groups, cap, seed, temperature, count):
    """The first `count` examples."""
    names = sorted(set(sources))
    members = {name: [i for i, source in enumerate(sources) if source == name] for name in names}
    shares = {name: weights.get(name, 1.0) * len(members[name]) for name in names}
    total = sum(shares.values())
    if temperature != 1.0:
        flattened = {name: share ** (1 / temperature) for name, share in shares.items()}
        norm = total / sum(flattened.values())
        shares = {name: share * norm for name, share in flattened.items()}
    streams = {name: passes_of(f"{seed}/{name}", members[name], groups, cap) for name in names}
    pending = {name: [] for name in names}
    drawn, epoch = [], 0
    while len(drawn) < count:
        units = []
        for name in names:
            wanted = math.floor((epoch + 1) * shares[name] + 1e-9) - math.floor(epoch * shares[name] + 1e-9)
            while wanted > 0:
                unit = pending[name].pop() if pending[name] else next(streams[name])
                if len(unit) > wanted:
                    pending[name].append(unit[wanted:])
                    unit = unit[:wanted]
                units.append(unit)
                wanted -= len(unit)
        for number in rng_of(f"{seed}/mixture/{epoch}").permutation(len(units)):
            drawn.extend(units[number])
        epoch += 1
    return drawn[:count]
