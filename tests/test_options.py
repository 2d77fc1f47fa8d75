"""Options: one declaration gives field, flag, help and check."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, FrozenInstanceError, dataclass
from typing import Literal

import pytest

from stylegan.errors import RequestError
from stylegan.options import add_arguments, check, from_namespace, option, option_of, options_of


def read_pair(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+"))


@dataclass(frozen=True)
class Settings:
    data: str = option(MISSING, "where the pictures are", metavar="DIR")
    rate: float = option(0.5, "how fast, 100%", low=0.0, high=2.0)
    count: int | None = option(None, "how many", low=1)
    mirror: bool = option(True, "flip pictures")
    mode: Literal["a", "b"] = option("a", "which way")
    sizes: tuple[int, ...] = option((1, 2), "sizes", parse=read_pair, show=lambda sizes: "+".join(map(str, sizes)))
    tags: tuple[str, ...] = option((), "tags", flag="--tag", repeat=True)
    secret: int = option(3, "not a flag", hidden=True)
    plain: int = 7

    def __post_init__(self) -> None:
        check(self)


def parsed(line: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, Settings)
    return from_namespace(Settings, parser.parse_args(line.split()))


def test_options_are_found_in_order_with_defaults():
    assert list(options_of(Settings)) == ["data", "rate", "count", "mirror", "mode", "sizes", "tags", "secret"]
    assert option_of(Settings, "rate").default == 0.5
    assert option_of(Settings, "rate").high == 2.0
    assert option_of(Settings, "data").required
    assert option_of(Settings, "mode").choices == ("a", "b")
    with pytest.raises(KeyError):
        option_of(Settings, "plain")


def test_flags_become_fields():
    assert parsed("--data x") == Settings("x")
    line = "--data x --rate -0 --count 4 --no-mirror --mode b --sizes 3+4+5 --tag p --tag q"
    assert parsed(line) == Settings("x", 0.0, 4, False, "b", (3, 4, 5), ("p", "q"))


def test_flags_that_were_not_given_leave_no_trace_and_overrides_win():
    parser = argparse.ArgumentParser()
    add_arguments(parser, Settings, only=("data", "rate"))
    namespace = parser.parse_args(["--data", "x"])
    assert vars(namespace) == {"data": "x"}
    assert from_namespace(Settings, namespace, data="y", secret=9) == Settings("y", secret=9)


def test_help_names_range_and_default():
    parser = argparse.ArgumentParser()
    add_arguments(parser, Settings, skip=("count",))
    text = " ".join(parser.format_help().split())
    assert "how fast, 100% (between 0.0 and 2.0; default 0.5)" in text
    assert "sizes (default 1+2)" in text
    assert "--no-mirror" in text and "--count" not in text and "--secret" not in text


@pytest.mark.parametrize("line", ["", "--data x --rate fast", "--data x --sizes a+b", "--data x --mode c"])
def test_bad_flags_are_refused(line):
    parser = argparse.ArgumentParser()
    add_arguments(parser, Settings)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(line.split())
    assert end.value.code == 2


@pytest.mark.parametrize(("values", "message"), [
    ({"rate": 3.0}, "rate must be between 0.0 and 2.0, not 3.0"),
    ({"rate": float("nan")}, "rate must be a finite number"),
    ({"rate": "1"}, "rate must be a number"),
    ({"rate": True}, "rate must be a number"),
    ({"count": 0}, "count must be at least 1"),
    ({"count": 1.0}, "count must be a whole number"),
    ({"count": True}, "count must be a whole number"),
    ({"mirror": 1}, "mirror must be true or false"),
    ({"mode": "c"}, "mode must be one of a, b"),
    ({"sizes": 3}, "sizes must be a list"),
    ({"data": None}, "data must be text"),
])
def test_check_refuses(values, message):
    with pytest.raises(RequestError, match=message):
        Settings(**{"data": "x", **values})


def test_check_converts_whole_floats_and_lists():
    settings = Settings("x", rate=1, sizes=[5, 6])
    assert type(settings.rate) is float and settings.sizes == (5, 6)
    with pytest.raises(FrozenInstanceError):
        settings.rate = 2.0
