"""Classes of loop orders lose nothing: every order is matched or beaten by a class."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.mapping.orders import Signature, order_classes

# dims K C P Q R S N of a convolution; weights, inputs, outputs
CONV: Signature = (
    (frozenset({0, 1, 4, 5}), frozenset()),
    (frozenset({1, 2, 3, 4, 5, 6}), frozenset({2, 3, 4, 5})),
    (frozenset({0, 2, 3, 6}), frozenset()),
)


def outcome(signature: Signature, order: tuple[int, ...]) -> list[tuple[frozenset[int], int]]:
    """Per tensor: dims it rests during, and the window it slides along (-1: none)."""
    found = []
    for indexing, sliding in signature:
        rests = set()
        halo = -1
        for dim in order:
            if dim in indexing:
                halo = dim if dim in sliding else -1
                break
            rests.add(dim)
        found.append((frozenset(rests), halo))
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.frozensets(st.integers(0, 6), max_size=5))
def test_every_order_of_a_convolution_is_matched_or_beaten(present: frozenset[int]) -> None:
    classes = [outcome(CONV, made.order) for made in order_classes(CONV, present)]
    for order in permutations(sorted(present)):
        mine = outcome(CONV, order)
        assert any(
            all(a[0] >= b[0] and b[1] in (-1, a[1]) for a, b in zip(theirs, mine, strict=True)) for theirs in classes
        ), order


def test_a_convolution_has_eight_classes_and_an_empty_block_one() -> None:
    assert len(order_classes(CONV, frozenset(range(7)))) == 8
    assert len(order_classes(CONV, frozenset())) == 1


@pytest.mark.parametrize("present", [{0}, {0, 1}, {2, 4}, set(range(7))])
def test_a_class_lists_every_dim_once_and_says_what_its_order_does(present: set[int]) -> None:
    for made in order_classes(CONV, frozenset(present)):
        assert sorted(made.order) == sorted(present)
        assert [rests for rests, _ in outcome(CONV, made.order)] == list(made.rests)
