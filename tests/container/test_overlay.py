"""Layers, merged by the guest's kernel: what the specification says in words."""

from __future__ import annotations

import pytest

from course.container import overlay
from course.error import UsageError

CASES = {
    "upper wins": ([{"a": b"1", "b": b"2"}, {"a": b"3"}], {"a": b"3", "b": b"2"}),
    "whiteout": ([{"a": b"1", "b": b"2"}, {".wh.a": b""}], {"b": b"2"}),
    "opaque": (
        [{"d": None, "d/x": b"1", "d/e": None, "d/e/y": b"1"}, {"d": None, "d/.wh..wh..opq": b"", "d/z": b"2"}],
        {"d": None, "d/z": b"2"},
    ),
    "opaque in opaque": (
        [
            {"d": None, "d/e": None, "d/e/x": b"1"},
            {"d": None, "d/.wh..wh..opq": b"", "d/e": None, "d/e/.wh..wh..opq": b"", "d/e/.hidden": b"2"},
        ],
        {"d": None, "d/e": None, "d/e/.hidden": b"2"},
    ),
    "file over folder": ([{"d": None, "d/x": b"1"}, {"d": b"file"}], {"d": b"file"}),
    "folder anew": ([{"d": None, "d/x": b"1"}, {".wh.d": b"", "d": None}], {"d": None}),
    "any bytes": ([{"a": bytes(range(256))}], {"a": bytes(range(256))}),
    "nothing": ([], {}),
}


@pytest.mark.qemu
def test_the_kernel_merges_as_the_specification_says(lab):
    """Each rule of the image specification holds in overlayfs with our translation of its marks."""
    merged = overlay.merge_in_kernel(lab, [layers for layers, _ in CASES.values()])
    assert dict(zip(CASES, merged, strict=True)) == {name: tree for name, (_, tree) in CASES.items()}


@pytest.mark.qemu
def test_the_kernel_can_be_asked_twice(lab):
    """A merge leaves nothing behind that would disturb the next."""
    for content in (b"one", b"two"):
        assert overlay.merge_in_kernel(lab, [[{"a": content}]]) == [{"a": content}]
    assert "/lab/merge" not in lab.run("cat /proc/mounts").output


@pytest.mark.parametrize("layer", [{"d/x": b"1"}, {"d": b"file", "d/x": b"1"}, {".wh..wh..opq": b""}])
def test_what_is_no_layer_is_refused(layer):
    """A path needs its folder, and the root cannot be opaque."""
    with pytest.raises(UsageError, match="expected"):
        overlay.merge_in_kernel(None, [[layer]])
