"""Metrics with the user's own networks: closed forms, networks of the same layout, and files that are no weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stylegan.data.images import open_images, sample_sets
from stylegan.errors import CheckpointError, DataError
from stylegan.metrics.evaluate import evaluate
from stylegan.metrics.frechet import frechet_distance
from stylegan.metrics.path_length import perceptual_path_length
from stylegan.metrics.weights import load_extractor


def tiny_dinov2(width: int = 64, blocks: int = 2, patch: int = 14, side: int = 3) -> dict[str, torch.Tensor]:
    """A state dict in DINOv2's layout with random weights."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * 0.05

    state = {"cls_token": random(1, 1, width), "pos_embed": random(1, 1 + side**2, width),
             "mask_token": random(1, width), "norm.weight": 1 + random(width), "norm.bias": random(width),
             "patch_embed.proj.weight": random(width, 3, patch, patch), "patch_embed.proj.bias": random(width)}
    for i in range(blocks):
        for name, rows, columns in (("attn.qkv", 3 * width, width), ("attn.proj", width, width),
                                    ("mlp.fc1", 4 * width, width), ("mlp.fc2", width, 4 * width)):
            state |= {f"blocks.{i}.{name}.weight": random(rows, columns), f"blocks.{i}.{name}.bias": random(rows)}
        for name in ("norm1", "norm2"):
            state |= {f"blocks.{i}.{name}.weight": 1 + random(width), f"blocks.{i}.{name}.bias": random(width)}
        state |= {f"blocks.{i}.ls{j}.gamma": 1 + random(width) for j in (1, 2)}
    return state  # fmt: skip


def inception(classes: int) -> dict[str, torch.Tensor]:
    """A state dict in Inception v3's layout with random weights, of the published shapes."""
    draw = torch.Generator().manual_seed(0)
    state = {"fc.weight": torch.zeros(classes, 2048), "fc.bias": torch.zeros(classes)}

    def conv(name: str, before: int, after: int, *size: int) -> None:
        height, width = size * 2 if len(size) == 1 else size
        scale = (2 / (before * height * width)) ** 0.5
        state[f"{name}.conv.weight"] = torch.randn(after, before, height, width, generator=draw) * scale
        state.update({f"{name}.bn.weight": torch.ones(after), f"{name}.bn.bias": torch.zeros(after),
                      f"{name}.bn.running_mean": torch.zeros(after), f"{name}.bn.running_var": torch.ones(after)})

    for name, *shape in (("1a_3x3", 3, 32, 3), ("2a_3x3", 32, 32, 3), ("2b_3x3", 32, 64, 3), ("3b_1x1", 64, 80, 1),
                         ("4a_3x3", 80, 192, 3)):
        conv(f"Conv2d_{name}", *shape)
    for letter, before, pool in (("b", 192, 32), ("c", 256, 64), ("d", 288, 64)):
        block = f"Mixed_5{letter}.branch"
        for name, *shape in (("1x1", before, 64, 1), ("5x5_1", before, 48, 1), ("5x5_2", 48, 64, 5),
                             ("3x3dbl_1", before, 64, 1), ("3x3dbl_2", 64, 96, 3), ("3x3dbl_3", 96, 96, 3),
                             ("_pool", before, pool, 1)):
            conv(block + name, *shape)
    for name, *shape in (("3x3", 288, 384, 3), ("3x3dbl_1", 288, 64, 1), ("3x3dbl_2", 64, 96, 3),
                         ("3x3dbl_3", 96, 96, 3)):
        conv(f"Mixed_6a.branch{name}", *shape)
    for letter, mid in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        block = f"Mixed_6{letter}.branch"
        for name, *shape in (("1x1", 768, 192, 1), ("7x7_1", 768, mid, 1), ("7x7_2", mid, mid, 1, 7),
                             ("7x7_3", mid, 192, 7, 1), ("7x7dbl_1", 768, mid, 1), ("7x7dbl_2", mid, mid, 7, 1),
                             ("7x7dbl_3", mid, mid, 1, 7), ("7x7dbl_4", mid, mid, 7, 1), ("7x7dbl_5", mid, 192, 1, 7),
                             ("_pool", 768, 192, 1)):
            conv(block + name, *shape)
    for name, *shape in (("3x3_1", 768, 192, 1), ("3x3_2", 192, 320, 3), ("7x7x3_1", 768, 192, 1),
                         ("7x7x3_2", 192, 192, 1, 7), ("7x7x3_3", 192, 192, 7, 1), ("7x7x3_4", 192, 192, 3)):
        conv(f"Mixed_7a.branch{name}", *shape)
    for letter, before in (("b", 1280), ("c", 2048)):
        block = f"Mixed_7{letter}.branch"
        for name, *shape in (("1x1", before, 320, 1), ("3x3_1", before, 384, 1), ("3x3_2a", 384, 384, 1, 3),
                             ("3x3_2b", 384, 384, 3, 1), ("3x3dbl_1", before, 448, 1), ("3x3dbl_2", 448, 384, 3),
                             ("3x3dbl_3a", 384, 384, 1, 3), ("3x3dbl_3b", 384, 384, 3, 1), ("_pool", before, 192, 1)):
            conv(block + name, *shape)
    return state  # fmt: skip


# The Frechet distance


def gaussian(mean: list[float], deviations: list[float], num: int = 500) -> torch.Tensor:
    """Points whose mean and (diagonal) covariance are exactly these."""
    points = torch.randn(num, len(mean), generator=torch.Generator().manual_seed(len(mean))).double()
    points = torch.linalg.qr(points - points.mean(0)).Q * (num - 1) ** 0.5  # covariance 1
    points = points - points.mean(0)
    return points * torch.tensor(deviations) + torch.tensor(mean)


def test_frechet_distance_of_known_gaussians() -> None:
    a, b = gaussian([0, 0, 0], [1, 2, 3]), gaussian([1, -2, 0.5], [2, 2, 0.5])
    expected = 1 + 4 + 0.25 + (1 - 2) ** 2 + 0 + (3 - 0.5) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_turned_gaussians() -> None:
    """Covariances that do not commute: C = diag(4, 1) and the same turned by 45 degrees."""
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]]).double() / 2**0.5
    a = gaussian([0, 0], [2, 1])
    first = torch.diag(torch.tensor([4.0, 1.0])).double()
    product = first @ turn.T @ first @ turn  # tr sqrt of a 2 x 2: sqrt(tr + 2 sqrt(det))
    expected = 10 - 2 * math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    assert frechet_distance(a, a @ turn) == pytest.approx(expected, abs=1e-6)


def test_frechet_distance_of_fewer_pictures_than_features() -> None:
    a, b = (torch.randn(6, 20, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
    covariances = [torch.from_numpy(np.cov(x.numpy().T)) for x in (a, b)]
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + sum(c.trace() for c in covariances) - 2 * roots
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(DataError, match="at least 2"):
        frechet_distance(a[:1], b)


# Networks


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_tiny_dinov2_judges_a_model(tmp_path: Path, tiny_generator, suffix: str) -> None:
    path = tmp_path / f"tiny{suffix}"
    state = tiny_dinov2()
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    extractor = load_extractor(path)
    assert extractor.name.startswith("dinov2-vit6414-") and len(extractor.name) == len("dinov2-vit6414-") + 8
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert extractor(image).shape == (3, 64)
    assert torch.allclose(extractor(image)[1:2], extractor(image[1:2]), atol=1e-5)
    assert extractor(image[:, :1]).isfinite().all()
    if suffix == ".pth":
        return
    small = open_images(sample_sets()["cartoon-sample-64"], 16)
    train, held_out = small.split(0.4)
    reports = {report.name: report for report in evaluate(tiny_generator, train, held_out, 16, extractor=extractor)}
    for name in ("KID", "precision", "AuthPct", "FID", "PPL"):
        report = reports[f"{name}-{extractor.name}"]
        assert math.isfinite(report.value) and report.extractor == extractor.name
    assert reports[f"FID-{extractor.name}"].value > reports[f"FID-{extractor.name}"].details["floor"]


def test_registers_and_positions_change_the_features(tmp_path: Path) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    for changed in ({}, {"register_tokens": torch.ones(1, 4, 64)}, {"pos_embed": torch.zeros(1, 10, 64)}):
        save_file(tiny_dinov2() | changed, tmp_path / "x.safetensors")
        found.append(load_extractor(tmp_path / "x.safetensors")(image))
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[0], found[2])


def test_both_kinds_of_inception_are_told_apart(tmp_path: Path) -> None:
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = {}
    for classes, kind in ((1000, "torchvision"), (1008, "2015")):
        save_file(inception(classes), tmp_path / "x.safetensors")
        extractor = load_extractor(tmp_path / "x.safetensors")
        assert extractor.name.startswith(f"inception-{kind}-")
        found[kind] = extractor(image)
        assert found[kind].shape == (1, 2048) and found[kind].isfinite().all() and found[kind].std() > 0
    assert not torch.allclose(found["2015"], found["torchvision"], rtol=1e-2)


class Mean:
    """Features that are the pictures' mean colour."""

    name = "mean"

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))


def test_path_length_of_a_straight_world() -> None:
    """A generator whose mean colour is a linear function of w: every step is as long as the ends are apart."""
    from toys import Toy

    toy = Toy()
    toy.synthesize = lambda ws: ws[:, 0, :3, None, None].expand(-1, -1, 8, 8).double()
    report = perceptual_path_length(toy, Mean(), num=400)
    assert report.name == "PPL-mean" and report.num_images == 400
    assert report.value == pytest.approx(2.0, rel=0.15)  # E |w1 - w2|^2 per feature of unit normals
    assert 0 < report.spread < 0.2 and perceptual_path_length(toy, Mean(), num=400) == report
    toy.synthesize = lambda ws: 3 * ws[:, 0, :3, None, None].expand(-1, -1, 8, 8).double()
    assert perceptual_path_length(toy, Mean(), num=400).value == pytest.approx(9 * report.value, rel=1e-2)


# Files that are no weights


class Harm:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_program_is_refused_and_never_run(tmp_path: Path) -> None:
    script = tmp_path / "inception.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    with pytest.raises(CheckpointError, match=r"^inception\.pt is TorchScript, which is a program[^\n]+\.$"):
        load_extractor(script)
    torch.save({"patch_embed.proj.weight": Harm(tmp_path / "ran")}, tmp_path / "harm.pth")
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load_extractor(tmp_path / "harm.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [{"blocks.1.attn.qkv.weight": None}, {"norm.bias": None}, {"pos_embed": torch.zeros(1, 3, 5)},
     {"patch_embed.proj.weight": torch.zeros(64)}, {"blocks.x.ls1.gamma": torch.zeros(64)},
     {"cls_token": torch.zeros(1, 1, 7)}, {"pos_embed": torch.zeros(7)},
     {"patch_embed.proj.weight": torch.zeros(64, 3, 1, 1)}],
)  # fmt: skip
def test_a_damaged_network_is_one_sentence(tmp_path: Path, change: dict) -> None:
    state = {name: value for name, value in (tiny_dinov2() | change).items() if value is not None}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"^[^\n]+DINOv2[^\n]+\.$"):
        load_extractor(tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x80\x04.", b"{}" * 50, None])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_other_files_are_one_sentence(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif name == "x.pth":
        torch.save([torch.zeros(2)], tmp_path / name)
    else:
        save_file({"a": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"^x\.\w+ [^\n]+\.$"):
        load_extractor(tmp_path / name)
    with pytest.raises(CheckpointError, match="There is no file"):
        load_extractor(tmp_path / "nowhere.pth")


def test_an_inception_with_a_layer_missing_is_one_sentence(tmp_path: Path) -> None:
    state = inception(1008)
    for missing in ("Mixed_6c.branch7x7_2.conv.weight", "Mixed_5b.branch1x1.bn.running_var", "fc.weight"):
        save_file({name: value for name, value in state.items() if name != missing}, tmp_path / "x.safetensors")
        with pytest.raises(CheckpointError, match=r"^[^\n]+Inception v3[^\n]+\.$"):
            load_extractor(tmp_path / "x.safetensors")
