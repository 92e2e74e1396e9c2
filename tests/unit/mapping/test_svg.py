"""The drawing: well-formed, self-contained, the same every time, with every level, loop and tensor."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_samples import random_arch, random_mapping, random_problem

from dse.mapping import evaluate
from dse.mapping.svg import COLORS, WIDTH, loop_nest_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(seed: int) -> tuple[str, list[str], object, object, object, object]:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng)
    mapping = random_mapping(rng, problem, arch)
    cost = evaluate(problem, arch, mapping)
    text = loop_nest_svg(mapping, arch, cost, problem, title="a <b> & c")
    words = [element.text or "" for element in ElementTree.fromstring(text).iter(f"{SVG}text")]
    return text, words, problem, arch, mapping, cost


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_every_loop_level_and_tensor_is_drawn(seed: int) -> None:
    text, words, problem, arch, mapping, cost = drawn(seed)
    temporal = [loop for part in mapping.temporal for loop in part.loops if loop[1] > 1]
    spatial = [loop for loops in mapping.spatial.values() for loop in loops if loop[1] > 1]
    assert sum(word.startswith("for ") for word in words) == len(temporal)
    assert sum(word.startswith("\u2225 ") for word in words) == len(spatial)
    for level in arch.levels:
        assert any(word.split(" ")[0] == level.name for word in words)
    kept = len(cost.traffic)
    assert sum(word.endswith("passes by") for word in words) == len(arch.levels) * len(problem.tensors) - kept
    for item in cost.traffic:
        assert f"{item.reads:,.0f}" in words
        assert f"{item.energy_pj:,.0f}" in words
    assert text == drawn(seed)[0]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_nothing_lies_outside_and_nothing_comes_from_elsewhere(seed: int) -> None:
    text, *_ = drawn(seed)
    root = ElementTree.fromstring(text)
    height = float(root.attrib["height"])
    for element in root.iter(f"{SVG}rect"):
        x, y = float(element.attrib.get("x", 0)), float(element.attrib.get("y", 0))
        assert 0 <= x <= x + float(element.attrib["width"]) <= WIDTH
        assert 0 <= y <= y + float(element.attrib["height"]) <= height
    for element in root.iter(f"{SVG}text"):
        assert 0 < float(element.attrib["x"]) < WIDTH
        assert 0 < float(element.attrib["y"]) < height
    assert "href" not in text
    assert "url(" not in text
    assert "<script" not in text
    assert "a &lt;b&gt; &amp; c" in text


def test_bands_do_not_overlap_and_bars_show_shares_of_the_energy() -> None:
    text, *_, cost = drawn(11)
    root = ElementTree.fromstring(text)
    bands = [e for e in root.iter(f"{SVG}rect") if "rx" in e.attrib]
    ends = [(float(e.attrib["y"]), float(e.attrib["y"]) + float(e.attrib["height"])) for e in bands]
    assert all(before[1] <= after[0] for before, after in pairwise(ends))
    dearest = max(cost.traffic, key=lambda item: item.energy_pj)
    bars = [float(e.attrib["width"]) for e in root.iter(f"{SVG}rect") if e.attrib.get("fill") == COLORS[dearest.role]]
    assert max(bars) >= 56 * dearest.energy_pj / cost.energy_pj - 0.1
