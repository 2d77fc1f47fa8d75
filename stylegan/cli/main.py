"""`python -m stylegan COMMAND`: finds the command, parses its flags, runs it, and turns faults into exit codes."""

from __future__ import annotations

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from stylegan.device import tune_allocator
from stylegan.errors import StyleGANError

COMMANDS = ("generate", "info", "import", "train", "runs", "directions", "metrics", "prepare", "bench")


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end with 2."""
        self.exit(2, f"{self.prog}: {message.rstrip('.')}.\n")


def make_parser() -> Parser:
    """The parser of all commands; imports neither torch nor gradio."""
    parser = Parser(prog="stylegan", description="Explore, edit and train StyleGAN generators.",
                    epilog="'python -m stylegan COMMAND --help' explains a command.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 the user can mend it; other faults raise."""
    args = make_parser().parse_args(argv)
    tune_allocator()
    try:
        return _module(args.command).run(args)
    except StyleGANError as error:
        print(f"stylegan {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stylegan {args.command}: stopped.", file=sys.stderr)
        return 130


def _module(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"stylegan.cli.{name}{'_' * keyword.iskeyword(name)}")
