"""Programs that tests start: signals mean to them what they mean in the foreground, and none outlives its test."""

import contextlib
import multiprocessing
import signal
import subprocess
import threading

import psutil


@contextlib.contextmanager
def start(command, seconds=300, **options):
    """Starts a program, and kills it with its children at the end of the block, or after so many seconds.

    Whoever reads from it or waits for it then goes on, and fails on what is missing; no other wait needs a limit.
    """
    with foreground_signals():
        process = subprocess.Popen([str(word) for word in command], **options)
    timer = threading.Timer(seconds, kill, [process])
    timer.start()
    with process:
        try:
            yield process
        finally:
            timer.cancel()
            kill(process)


def prepared():
    """A context of `multiprocessing` whose children start at once.

    They come from a server, one for all tests, that has imported everything and computed nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_vanilla_transformer.training", "training_runs"])
    return context


def exit_code(process, seconds=300):
    """How a child that should end by itself did end; None if it did not, and was killed."""
    process.join(seconds)
    code = process.exitcode
    process.kill()
    process.join()
    return code


@contextlib.contextmanager
def foreground_signals():
    """Signals do what they do in the foreground, in this process and in those it starts meanwhile.

    A shell that starts the tests in the background has them ignore SIGINT, and nohup SIGHUP; their children would too.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill(process):
    """Kills a process that was started here, and all that it started."""
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += psutil.Process(process.pid).children(recursive=True)
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
