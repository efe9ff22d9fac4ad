"""Says what is wrong with the arguments of a command in one sentence that says what to do, instead of click's words."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
from click.core import ParameterSource

from ..common.errors import escape_controls
from ..common.suggest import suggest_name


def explain_usage_error(error: click.UsageError) -> str:
    """The sentence for an error of click."""
    return escape_controls(_explain(error))


def require_subcommand(group: click.Group, ctx: click.Context, args: Sequence[str]) -> None:
    """Checks that a group has the subcommand that is asked for.

    Raises:
        UsageError: It has none of that name.
    """
    name = args[0] if args else ""
    if name and name not in group.commands and not name.startswith("-"):
        hint = suggest_name(name, list(group.commands))
        raise click.UsageError(f"'{ctx.command_path}' has no command '{name}'; {hint}", ctx)


def _explain(error: click.UsageError) -> str:
    command = f"'{error.ctx.command_path}'" if error.ctx else "this command"
    if isinstance(error, click.NoSuchOption):
        return _explain_unknown(error, command)
    if isinstance(error, click.BadOptionUsage):
        return _explain_value_count(error)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{_get_name(error.param)} is missing. Give {_describe_value(error.param, error.ctx)} to {command}."
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_get_source(error.param, error.ctx)}: {error.message}"
    return error.format_message()


def _explain_unknown(error: click.NoSuchOption, command: str) -> str:
    parameters = error.ctx.command.params if error.ctx else []
    known = [name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)]
    similar = suggest_name(error.option_name, known)
    if similar.startswith("known"):
        help_option = f"see {command[:-1]} --help'" if error.ctx else "see --help"
        similar = f"leave it out, or {help_option}. Before an argument that begins with '-', put '--'."
    return f"{command} has no option '{error.option_name}'; {similar}"


def _explain_value_count(error: click.BadOptionUsage) -> str:
    parameters = error.ctx.command.params if error.ctx else []
    option = next((parameter for parameter in parameters if error.option_name in parameter.opts), None)
    if option is None or not isinstance(option, click.Option) or option.is_flag:
        return f"{error.option_name} takes no value. Leave out what follows '='."
    missing = "has no value" if option.nargs == 1 else f"needs {option.nargs} values"
    return f"{error.option_name} {missing}. Give {_describe_value(option, error.ctx)}."


def _get_name(parameter: click.Parameter) -> str:
    """What a parameter is called: an option by its long name, an argument as the help shows it."""
    is_option = isinstance(parameter, click.Option)
    return max(parameter.opts, key=len) if is_option else parameter.human_readable_name


def _get_source(parameter: click.Parameter, ctx: click.Context | None) -> str:
    """What gave a parameter its value: its name, or that of the environment variable."""
    name = parameter.name or ""
    if ctx is None or ctx.get_parameter_source(name) is not ParameterSource.ENVIRONMENT:
        return _get_name(parameter)
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
    variable = next((variable for variable in variables if os.environ.get(variable)), None)
    return f"the environment variable {variable}" if variable else _get_name(parameter)


def _describe_value(parameter: click.Parameter, ctx: click.Context | None) -> str:
    """How an option is given, with what stands for its value; an argument is just given."""
    if not isinstance(parameter, click.Option) or ctx is None:
        return "it"
    return f"it as {_get_name(parameter)} {parameter.make_metavar(ctx)}"
