"""Errors and files: one tree, safe names, writes that are whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from stylegan import errors
from stylegan.files import safe_name, write_atomic


def test_every_error_derives_from_one():
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 7
    assert all(issubclass(kind, errors.StyleGANError) for kind in kinds)


def test_public_names_are_reachable_and_unknown_ones_are_not():
    import stylegan

    for name in stylegan.__all__:
        assert getattr(stylegan, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stylegan.nothing  # noqa: B018


def test_write_makes_parents_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a" / "b.bin"
    write_atomic(path, b"old")
    assert write_atomic(path, b"new") == path
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["b.bin"]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode


def test_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "model", b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.StyleGANError, match="disk is full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_in_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StyleGANError, match="in the way"):
        write_atomic(tmp_path / "file" / "below", b"")


@pytest.mark.parametrize("name", ["a", "faces-64_v1.2", "0" * 64])
def test_safe_names(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "a b", "x" * 65, "a\n", "ä"])
def test_unsafe_names(name):
    with pytest.raises(errors.RequestError):
        safe_name(name)
