"""Settings: from the command line, from the environment, and refused with a reason."""

from pathlib import Path

import pytest

from numavm_operator.settings import read_settings


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/from/environment")
    monkeypatch.setenv("NUMAVM_OPERATOR_WORKERS", "3")

    settings = read_settings(["--workers", "5", "--log-format", "console"])

    assert settings.kubeconfig == Path("/from/environment")
    assert settings.workers == 5
    assert settings.log_format == "console"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "0"], "workers: Input should be greater than or equal to 1 (given: '0')"),
        (["--listen-port", "65536"], "listen_port"),
        (["--lease-renew-seconds", "10"], "lower it to 5 or less"),
        (["--log-format", "xml"], "log_format"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments)

    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_lists_what_people_set_and_not_what_tests_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--kubeconfig" in text
    assert "--lease-seconds" in text
    assert "kill" not in text
    assert "start-over" not in text
