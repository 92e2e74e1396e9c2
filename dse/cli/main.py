"""The command group, and what becomes of every kind of error."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from dse.core.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, DseError, nearest

#: Commands by name; each module holds its click command as `command`.
COMMANDS = {
    "run": "dse.cli.run",
    "simulate": "dse.cli.simulate",
    "compile": "dse.cli.compile",
    "compare": "dse.cli.compare",
    "list": "dse.cli.list",
    "show": "dse.cli.show",
    "quantize": "dse.cli.quantize",
    "map": "dse.cli.map",
    "validate": "dse.cli.validate",
    "calibrate": "dse.cli.calibrate",
    "rtl": "dse.cli.rtl",
    "init": "dse.cli.init",
    "schema": "dse.cli.schema",
}

#: What the operating system refuses because of where the user points us: no bug of ours.
_ENVIRONMENT = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOSPC,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
    }
)


class LazyGroup(click.Group):
    """Imports a command's module when the command is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`, which is the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, naming the nearest command for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"{args[0]!r} is not a command{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Shell completion: eval "$(_DSE_COMPLETE=bash_source dse)", or zsh_source, fish_source.',
)
@click.version_option(None, "--version", package_name="silicon-dse", message="dse %(version)s")
def cli() -> None:
    """Simulate neural-network accelerators, search their design space, and emit verified RTL."""


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command; every error becomes one line on stderr and an exit code.

    Returns
    -------
    0 done, 1 our bug (with a traceback), 2 usage or configuration, 3 nothing feasible, 130 interrupted.
    """
    try:
        result = cli.main(list(arguments) or ["--help"], prog_name="dse", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _fail(_usage(error), EXIT_USAGE)
    except DseError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has seen enough; the interpreter must not fail while flushing at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if error.errno in _ENVIRONMENT and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", EXIT_USAGE)
        return _bug()
    except Exception:
        return _bug()


def _usage(error: click.ClickException) -> str:
    """Click's message, with the command whose help explains more."""
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".")
    return f"{text}; see {context.command_path} -h" if context is not None else text


def _fail(message: str, exit_code: int) -> int:
    sys.stderr.write(f"dse: error: {' '.join(message.split())}\n")
    return exit_code


def _bug() -> int:
    traceback.print_exc()
    sys.stderr.write("dse: error: this is a bug of dse; please report the traceback above with the command you ran\n")
    return EXIT_BUG
