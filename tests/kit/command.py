"""Runs the command line inside of the test's process, which is quick."""

import json

from typer.testing import CliRunner, Result

from moesaic.cli import app


def run(*arguments: object) -> Result:
    """Runs `moesaic` with these arguments; a wide screen keeps tables on their lines."""
    return CliRunner(env={"COLUMNS": "1000"}).invoke(app, [str(a) for a in arguments])


def shown(*arguments: object) -> str:
    """Returns what a command that must succeed writes to stdout."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def as_json(*arguments: object) -> dict:
    """Returns the one JSON document that a command writes to stdout."""
    return json.loads(shown(*arguments, "--json"))


def refused(*arguments: object) -> str:
    """Returns what a command that must fail writes to stderr; it must say what to do."""
    result = run(*arguments)
    assert result.exit_code == 1, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    assert "hint:" in result.stderr
    return result.stderr
