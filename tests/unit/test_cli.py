"""What the command line says before any command."""

from importlib.metadata import version

from typer.testing import CliRunner

from flows.cli import app


def test_version_needs_no_command() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout.strip()) == (0, version("r1flow"))
