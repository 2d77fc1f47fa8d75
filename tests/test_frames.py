"""Frames of videos: how far apart, turned and sized as they should be; and files that are no videos or worse."""

from __future__ import annotations

import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan.data import frames as room
from stylegan.data.frames import Step, extract_frames
from stylegan.data.images import open_images, sample_sets
from stylegan.data.prepare import inspect, prepare
from stylegan.errors import DataError

SAMPLE = sample_sets()["cartoon-sample-64"]


def scenes(num: int) -> list[np.ndarray]:
    """Pictures that look nothing like each other, uint8 [48, 64, 3]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (num, 3, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(one).resize((64, 48), Image.Resampling.NEAREST)) for one in coarse]


def film(path: Path, pictures: list[np.ndarray], rate: int = 10) -> Path:
    """A video of those pictures, one a frame."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, rate)
        for one in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(one), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("text", "step"), [("1s", Step(1.0)), ("0.5s", Step(0.5)), (" 2S ", Step(2.0)), ("10", Step(frames=10))]
)
def test_steps_are_read(text: str, step: Step) -> None:
    assert Step.parse(text) == step


@pytest.mark.parametrize("text", ["", "s", "0", "-1", "0s", "nans", "infs", "1.5", "ten", "1e9s", "99999999"])
def test_other_steps_are_one_sentence(text: str) -> None:
    with pytest.raises(DataError, match=r"^[^\n]+is no step between frames[^\n]+\.$"):
        Step.parse(text)


def test_frames_come_every_so_often_and_show_their_moment(tmp_path: Path) -> None:
    pictures = scenes(20)
    video = film(tmp_path / "a.mp4", pictures)
    found = extract_frames(video, tmp_path / "out", 48, Step(seconds=0.5))
    assert (found.size, found.num_kept, found.num_alike, found.problem) == ((64, 48), 4, 0, "")
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"00000{i * 0.5:.3f}s.png" for i in range(4)]
    for i, path in enumerate(files):
        shown = np.asarray(Image.open(path)).astype(int)
        differences = [np.abs(shown - one).mean() for one in pictures]
        assert int(np.argmin(differences)) == 5 * i and min(differences) < 12
    assert extract_frames(video, tmp_path / "tenth", 48, Step(frames=7)).num_kept == 3
    assert extract_frames(video.read_bytes(), tmp_path / "bytes", 48, Step(frames=7)).num_kept == 3
    few = extract_frames(video, tmp_path / "few", 48, Step(frames=1), max_frames=6)
    assert (few.num_kept, few.problem) == (6, "only its first 6 frames were taken")


def test_frames_like_the_one_before_are_left_out(tmp_path: Path) -> None:
    a, b = scenes(2)
    video = film(tmp_path / "a.avi", [a] * 6 + [b] * 5 + [a] * 4)
    found = extract_frames(video, tmp_path / "out", 48, Step(frames=1))
    assert (found.num_kept, found.num_alike) == (3, 12)


def test_large_frames_are_made_smaller_never_larger(tmp_path: Path) -> None:
    video = film(tmp_path / "a.mkv", scenes(1))
    for resolution, size in ((24, (32, 24)), (48, (64, 48)), (512, (64, 48))):
        extract_frames(video, tmp_path / str(resolution), resolution, Step(frames=1))
        assert Image.open(next((tmp_path / str(resolution)).iterdir())).size == size


def test_preparing_takes_videos_among_pictures_folders_and_zips(tmp_path: Path) -> None:
    film(tmp_path / "set/cats/a.mp4", scenes(12))
    for name in ("set/cats/1.png", "set/dogs/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes(20)[-1 if "dogs" in name else -2]).save(tmp_path / name)
    out = tmp_path / "out.zip"
    report = prepare([tmp_path / "set"], out, 16, classes_from_folders=True, every="4")
    assert (report.num_accepted, report.num_videos, report.num_frames) == (5, 1, 3) and not report.skipped
    assert report.class_names == ("cats", "dogs") and report.class_counts == (4, 1)
    assert report.sizes == (((64, 48), 5),) and "videos: 1, 3 frames taken" in report.to_text()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "set"))
    again = prepare([tmp_path / "set.zip"], tmp_path / "again.zip", 16, classes_from_folders=True, every="4")
    assert again.num_frames == 3 and (tmp_path / "again.zip").read_bytes() == out.read_bytes()
    alone = prepare([tmp_path / "set/cats/a.mp4", SAMPLE], tmp_path / "x.zip", 16, every="0.5s")
    assert alone.num_accepted == 96 + 3 and alone.num_frames == 3
    looked = inspect(tmp_path / "set", every="2")
    assert (looked.num_frames, looked.resolution, looked.num_enlarged) == (6, 32, 0)


def test_opening_without_preparing_says_what_to_do_with_a_video(tmp_path: Path) -> None:
    Image.fromarray(scenes(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes(b"")
    assert open_images(tmp_path).skipped == (("b.mp4", "a video; preparing takes its frames"),)


def test_without_the_package_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "b.mp4").write_bytes(b"anything")
    with pytest.raises(DataError, match=r"^b\.mp4 cannot be used: [^\n]*pip install av[^\n]*\.$"):
        inspect(tmp_path / "b.mp4")
    Image.fromarray(scenes(1)[0]).save(tmp_path / "a.png")
    assert inspect(tmp_path).skipped == (("b.mp4", "a video; its frames need the package av (pip install av)"),)


# Files that are no videos, or worse

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://%s\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile %s\n"


@pytest.mark.parametrize("content", [PLAYLIST, CONCAT], ids=["playlist", "concat"])
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_a_list_of_other_files_opens_none_of_them(tmp_path: Path, content: bytes, suffix: str) -> None:
    secret = film(tmp_path / "private" / "a.ts", scenes(4))
    bad = tmp_path / f"bad.{suffix}"
    for name in (str(secret), "private/a.ts"):
        bad.write_bytes(content % name.encode())
        with pytest.raises(DataError, match="not a video that can be read here"):
            inspect(bad)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.webm", "a.mov"])
def test_damaged_videos_keep_what_can_be_read_or_are_skipped(tmp_path: Path, name: str) -> None:
    pytest.importorskip("av")
    whole = film(tmp_path / "whole.avi", scenes(30)).read_bytes()
    rng = np.random.default_rng(0)
    contents = [b"", b"\0" * 5000, rng.bytes(5000), whole[: len(whole) // 2], whole[:600]]
    contents.append(whole[:6000] + rng.bytes(9000))
    for i, content in enumerate(contents):
        (tmp_path / str(i)).mkdir()
        Image.fromarray(scenes(1)[0]).save(tmp_path / str(i) / "good.png")
        (tmp_path / str(i) / name).write_bytes(content)
        report = inspect(tmp_path / str(i), every="1")
        assert report.num_accepted == 1 + report.num_frames
        assert report.num_frames > 0 or report.skipped == ((name, "not a video that can be read here"),)
    assert report.num_frames < 30


def test_a_video_that_breaks_off_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "a.mp4", scenes(6))
    before = room._stepped

    def breaking(container, step):
        for i, found in enumerate(before(container, step)):
            if i == 4:
                raise RuntimeError("some decoder's own words")
            yield found

    monkeypatch.setattr(room, "_stepped", breaking)
    report = inspect(video, every="1")
    assert report.num_frames == 4
    assert report.skipped == (("a.mp4", "breaks off, so only the frames before that were taken"),)


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "a.mp4", scenes(2))
    monkeypatch.setattr(room, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match=r"frames of 64 x 48"):
        inspect(video)
