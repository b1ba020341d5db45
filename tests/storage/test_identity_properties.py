"""What must hold of a run's identity, whatever its configuration says."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

from conftest import composed
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_runner.storage.identity import identify
from tl_runner.storage.record import NEUTRAL, describe_run

few = settings(derandomize=True, max_examples=30, deadline=None, database=None)

texts, keys = st.text("abc_=/", max_size=5), st.text("xyz", min_size=1)
leaves = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6, width=32) | texts
nodes = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner))
configs = st.dictionaries(st.sampled_from(["train", "augment", "seed", "granted"]), nodes, min_size=1)


def turned(node: Any) -> Any:
    """The same with its keys in the other order, and whole numbers as floats."""
    if isinstance(node, dict):
        return {key: turned(value) for key, value in reversed(node.items())}
    if isinstance(node, list):
        return [turned(value) for value in node]
    return float(node) if type(node) is int else node


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values are that are no mapping and no list."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*path, key))
    else:
        yield path


def changed(node: Any, path: tuple[Any, ...], change: Any) -> Any:
    copy = at = deepcopy(node)
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change(at[path[-1]])
    return copy


def another(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "another"
    return value + 1 if isinstance(value, int | float) else f"{value}x"


@few
@given(configs)
def test_an_id_is_of_names_and_values_alone(config):
    assert identify(turned(config)) == identify(config)
    assert identify(json.loads(json.dumps(config))) == identify(config)
    assert len(identify(config)) == 10


@few
@given(configs, st.data())
def test_any_other_value_is_another_id(config, data):
    found = [*places(config)]
    if found:
        path = data.draw(st.sampled_from(found))
        assert identify(changed(config, path, another)) != identify(config)
    assert identify({**config, "more": 1}) != identify(config)


@cache
def composed_once() -> tuple[dict[str, Any], dict[str, str]]:
    return composed("method=dann", "granted=5")


def test_each_value_of_a_composed_configuration_counts_but_the_neutral_ones():
    config, choices = composed_once()
    kept = describe_run(config, choices)
    for path in places(config):
        if path[-1] == "_target_":
            continue  # of a part of ours its name counts, which tests/storage/test_identity.py looks at
        other = describe_run(changed(config, path, another), choices)
        neutral, seed = path[0] in NEUTRAL, path == ("seed",)
        assert (other.id == kept.id) == neutral, path
        assert (other.setting == kept.setting) == (neutral or seed), path


@few
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_seeds_are_runs_of_one_setting(one, other):
    config, choices = composed_once()
    first, second = (describe_run({**config, "seed": seed}, choices) for seed in (one, other))
    assert first.setting == second.setting
    assert (first.id == second.id) == (one == other)
    assert describe_run({**config, "seed": float(one)}, choices).id == first.id
