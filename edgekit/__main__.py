"""`edgekit` and `python -m edgekit`: run the command line and turn errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from edgekit.errors import EdgekitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 good, 1 a gate failed, 2 usage or bad input, 3 environment, 130 interrupted; 70 is a defect of edgekit
    itself, the only case that shows a traceback. Source: sysexits.h, EX_SOFTWARE.

    Args:
        arguments: What to run instead of the process's own arguments.
    """
    try:
        from edgekit.cli import cli
        from edgekit.cli.interrupts import Interrupts

        with Interrupts() as interrupts:
            cli.main(arguments, prog_name="edgekit", standalone_mode=False, obj=interrupts)
        sys.stdout.flush()
    except EdgekitError as error:
        return _say(error.message, error.hint, error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        # An interrupt that came through an exec() leaves a mark, by which `python -m` would end with the
        # signal instead of the code; the next exec() wipes it.
        # Source: CPython, Python/pythonrun.c, run_eval_code_obj.
        exec("")
        kept = str(error.__cause__ or error)  # click makes an Abort of a KeyboardInterrupt
        return _say(f"interrupted; {kept or 'nothing was written'}", "", 130)
    except getattr(click.exceptions, "NoArgsIsHelpError", ()) as error:  # click 8.2 and newer
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"See: {context.command_path} --help" if context is not None else ""
        return _say(error.format_message(), hint, error.exit_code)
    except MemoryError:
        return _say("out of memory", "Give fewer or shorter samples, or use a machine with more memory.", 3)
    except (BrokenPipeError, SystemExit):
        # The reader of our output has gone, which is its right (click and rich make it a SystemExit); what
        # is still buffered has to go nowhere.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", "The operating system refused it.", 3)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _say(f"{type(error).__name__}: a defect of edgekit", "Please report it with these lines.", 70)
    return 0


def _say(message: str, hint: str, exit_code: int) -> int:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    if hint:
        click.echo(hint, err=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
