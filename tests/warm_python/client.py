"""Replaces ``python [-u] [-W action] script.py ...``; see server.py.

Sends the command to the server, passes signals on, and ends as the script
did. Any other command line is handed to the real interpreter.
"""

import array
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time

REAL, WRAPPER, SOCKET, OWNER = sys.argv[1:5]
# signals that a process can receive and forward
PASSED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
LIMITS = resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE
KILLED = b'\x09'  # the wait status of a process that SIGKILL has ended


def parse(arguments):
    """Options, script and its arguments; None for the real interpreter."""
    options = dict(unbuffered=False, warnings=[])
    rest = list(arguments)
    while rest and rest[0].startswith('-'):
        flag = rest.pop(0)
        if flag == '-u':
            options['unbuffered'] = True
        elif flag == '-W' and rest and rest[0] in ('ignore', 'error'):
            options['warnings'].append(rest.pop(0))
        else:
            return None
    if not rest or not os.path.isfile(rest[0]):
        return None
    return dict(options, script=rest[0], arguments=rest[1:])


def connect():
    """A connection to the server, which the first caller starts."""
    with open(SOCKET + '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(SOCKET):
            start()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(SOCKET)
    return server


def start():
    """Start the server, and wait until it listens."""
    script = os.path.join(os.path.dirname(__file__), 'server.py')
    log = os.open(SOCKET + '.log', os.O_WRONLY | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    command = [REAL, '-W', 'ignore', script, SOCKET, OWNER]
    pid = os.posix_spawn(
        REAL, command, os.environ, setsid=True,
        file_actions=[(os.POSIX_SPAWN_DUP2, log, stream) for stream in (1, 2)]
        + [(os.POSIX_SPAWN_DUP2, null, 0)],
    )  # fmt: skip
    while not os.path.exists(SOCKET):
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit(f'the server has not started: see {SOCKET}.log')
        time.sleep(0.05)


def ask(request):
    """The connection on which the server reports the end of the script."""
    server = connect()
    streams = array.array('i', [0, 1, 2])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)]
    server.sendmsg([json.dumps(request).encode()], rights)
    # the child alone writes now, so that its end is the end of the stream
    for stream in (0, 1, 2):
        os.close(stream)
    return server


def listen(ignored):
    """A pipe that receives the numbers of the signals that come.

    A signal just before a blocking call would be lost on a handler alone.
    """
    received, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in PASSED:
        if number not in ignored:
            signal.signal(number, lambda *_: None)
    return received


def wait(server, received):
    """Pass signals on until the script ends; its wait status."""
    while True:
        ready, _, _ = select.select([server, received], [], [])
        if server in ready:
            return int.from_bytes(server.recv(4) or KILLED, 'little')
        for number in os.read(received, 64):
            server.send(number.to_bytes(4, 'little'))


def main():
    request = parse(sys.argv[5:])
    if request is None or os.environ.get('FGC_TEST_COLD'):
        os.execv(REAL, [REAL, *sys.argv[5:]])
    ignored = [n for n in PASSED if signal.getsignal(n) == signal.SIG_IGN]
    received = listen(ignored)
    request.update(
        folder=os.getcwd(),
        environment=dict(os.environ),
        executable=WRAPPER,
        ignored=[int(number) for number in ignored],
        bytecode=SOCKET + '.bytecode',
        limits={n: resource.getrlimit(n) for n in LIMITS},
    )
    status = wait(ask(request), received)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


main()
