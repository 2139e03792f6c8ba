"""SIGTERM and Ctrl-C: remembered, looked at between steps, and given back afterwards."""

import os
import signal
import threading

import pytest

from padis_jax.runs.signals import Interruption, leave


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_no_more(number, capfd):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with Interruption() as stop:
        assert stop.due(1) is None
        os.kill(os.getpid(), number)
        assert stop.due(2) is number
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # the next Ctrl-C ends the process
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # an impatient scheduler does not
    assert {n: signal.getsignal(n) for n in before} == before
    assert f"{number.name}: saving after this step" in capfd.readouterr().err


def test_other_threads_set_no_handlers():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Interruption() as stop:
            seen.append((stop.due(1), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_the_exit_code_names_the_signal(capsys):
    assert leave(signal.SIGTERM, 7).code == 143
    assert "stopped by SIGTERM after step 7" in capsys.readouterr().err
