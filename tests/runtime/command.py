"""A command as it is called from a shell, but in this process."""

import pytest

from flawline.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `flawline WORDS`."""
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err
