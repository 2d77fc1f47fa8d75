"""The folder of models: files appear, change and go without a restart; names and paths lead where they may."""

from __future__ import annotations

import os

import pytest
from conftest import TINY, TINY_CLASSES, save_tiny

from stylegan.checkpoint import file as checkpoint_file
from stylegan.checkpoint.file import model_hash
from stylegan.checkpoint.folder import ModelFolder
from stylegan.errors import CheckpointError, RequestError


def names(folder: ModelFolder) -> list[str]:
    return [entry.name for entry in folder.list()]


def test_the_list_says_what_there_is(tiny_folder):
    first, second = ModelFolder(tiny_folder).list()
    assert (first.name, second.name) == ("classes", "tiny")
    assert first.config == TINY_CLASSES and second.config == TINY
    assert first.summary == "stylegan2, 16 px, 3 classes" and second.summary == "stylegan2, 16 px"
    assert second.num_bytes == second.path.stat().st_size


def test_files_appear_change_and_go(tmp_path):
    folder = ModelFolder(tmp_path / "models")
    assert names(folder) == []
    path = save_tiny(tmp_path / "models" / "a.safetensors")
    assert names(folder) == ["a"]
    save_tiny(path, TINY_CLASSES)
    assert folder.list()[0].config == TINY_CLASSES
    path.unlink()
    assert names(folder) == []


def test_unchanged_files_are_read_once(tmp_path, monkeypatch):
    save_tiny(tmp_path / "a.safetensors")
    folder = ModelFolder(tmp_path)
    folder.list()
    monkeypatch.setattr("stylegan.checkpoint.folder.read_header", lambda path: pytest.fail("read again"))
    assert names(folder) == ["a"]


def test_what_is_no_model_is_left_out_and_damage_is_told(tmp_path):
    save_tiny(tmp_path / "good.safetensors")
    save_tiny(tmp_path / "good.directions.safetensors")
    save_tiny(tmp_path / ".hidden.safetensors")
    (tmp_path / "good.md").write_text("card")
    (tmp_path / "bad.safetensors").write_bytes(b"")
    folder = ModelFolder(tmp_path)
    assert names(folder) == ["good"]
    assert folder.problems() == {"bad.safetensors": "bad.safetensors is empty; copy or download it again."}
    with pytest.raises(CheckpointError, match="bad.safetensors is empty"):
        checkpoint_file.read_checkpoint(folder.find("bad"))


def test_foreign_files_are_listed_and_ours_wins(tmp_path):
    (tmp_path / "foreign.pkl").write_bytes(b"x")
    (tmp_path / "both.pkl").write_bytes(b"x")
    save_tiny(tmp_path / "both.safetensors")
    both, foreign = ModelFolder(tmp_path).list()
    assert both.path.suffix == ".safetensors" and both.config == TINY
    assert foreign.config is None and "converted" in foreign.summary


def test_names_and_paths_are_found(tiny_folder, tmp_path):
    outside = save_tiny(tmp_path / "outside.safetensors")
    folder = ModelFolder(tiny_folder)
    assert folder.find("tiny") == folder.find("tiny.safetensors") == tiny_folder / "tiny.safetensors"
    assert folder.find(outside) == outside
    with pytest.raises(CheckpointError, match="No model 'none' in .*; there are: classes, tiny"):
        folder.find("none")
    with pytest.raises(CheckpointError, match="it holds no model yet"):
        ModelFolder(tmp_path / "empty").find("none")


@pytest.mark.parametrize("way", ["{outside}", "{folder}/../outside/secret.safetensors", "{folder}/link.safetensors",
                                 "/etc/passwd", "..", ""])
def test_roots_keep_paths_inside(tmp_path, way):
    outside = save_tiny(tmp_path / "outside" / "secret.safetensors")
    inside = save_tiny(tmp_path / "runs" / "r" / "snapshots" / "000.safetensors")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sub").mkdir()
    os.symlink(outside, tmp_path / "models" / "sub" / "link.safetensors")
    folder = ModelFolder(tmp_path / "models", roots=[tmp_path / "runs"])
    assert folder.find(inside) == inside
    with pytest.raises(CheckpointError, match="No model"):
        folder.find(way.format(outside=outside, folder=tmp_path / "models" / "sub"))


def test_uploads_are_checked_named_and_kept(tmp_path):
    upload = save_tiny(tmp_path / "upload.safetensors")
    folder = ModelFolder(tmp_path / "models")
    entry = folder.add(upload, "mine")
    assert entry.path == tmp_path / "models" / "mine.safetensors" and entry.config == TINY
    assert names(folder) == ["mine"] and model_hash(entry.path) == model_hash(upload)
    assert folder.add(upload).name == "upload"
    with pytest.raises(CheckpointError, match="already"):
        folder.add(upload, "mine")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "x" * 70])
def test_uploads_with_unsafe_names(tmp_path, name):
    upload = save_tiny(tmp_path / "upload.safetensors")
    with pytest.raises(RequestError):
        ModelFolder(tmp_path / "models").add(upload, name)
    assert not (tmp_path / "models").exists()


def test_uploads_that_are_no_models(tmp_path):
    upload = tmp_path / "upload.safetensors"
    upload.write_bytes(b"<html>not found</html>")
    folder = ModelFolder(tmp_path / "models")
    with pytest.raises(CheckpointError, match="web page"):
        folder.add(upload)
    save_tiny(upload)
    with pytest.raises(CheckpointError, match="kept for directions"):
        folder.add(upload, "x.directions")
    assert names(folder) == []
