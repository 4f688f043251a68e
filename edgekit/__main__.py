"""`edgekit` and `python -m edgekit`: run the command line and turn errors into messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from edgekit.errors import EdgekitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 good, 1 a gate failed, 2 usage or bad input, 3 environment, 130 interrupted.

    Args:
        arguments: What to run instead of the process's own arguments.
    """
    from edgekit.cli import cli

    try:
        cli.main(arguments, prog_name="edgekit", standalone_mode=False)
    except EdgekitError as error:
        _say(error.message, error.hint)
        return error.exit_code
    except click.exceptions.Abort:
        _say("interrupted; nothing was written", "")
        return 130
    except KeyboardInterrupt:
        _say("interrupted; nothing was written", "")
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MemoryError:
        _say("out of memory", "Give fewer or shorter samples, or use a machine with more memory.")
        return 3
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing more can be said
        return 0
    return 0


def _say(message: str, hint: str) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    if hint:
        click.echo(hint, err=True)


if __name__ == "__main__":
    sys.exit(main())
