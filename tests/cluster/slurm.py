"""A Slurm of two nodes on this machine, apart from any other."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    """Ports that are free."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(('127.0.0.1', 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Slurm:
    """munged, slurmctld, and a slurmd for each of the nodes n1 and n2.

    Args:
        folder: For keys, state and logs; on a short path, for sockets.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.env = dict(
            os.environ,
            SLURM_CONF=str(self.folder / 'slurm.conf'),
            PATH=f'{os.environ["PATH"]}:/usr/sbin',
            CUDA_VISIBLE_DEVICES='-1',
        )
        self.daemons = []

    def __enter__(self):
        folder = self.folder
        (folder / 'state').mkdir()
        for node in ('n1', 'n2'):
            (folder / f'spool-{node}').mkdir()
        conf = CONF.format(
            folder=folder,
            host=socket.gethostname().split('.')[0],
            ports=free_ports(3),
        )
        (folder / 'slurm.conf').write_text(conf)
        key = folder / 'munge.key'
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._start('munged', '--foreground', '--force', f'--key-file={key}',
                    f'--socket={folder}/munge.socket',
                    f'--pid-file={folder}/munged.pid',
                    f'--log-file={folder}/munged.log',
                    f'--seed-file={folder}/munge.seed')  # fmt: skip
        while not (folder / 'munge.socket').exists():
            time.sleep(0.05)
        self._start('slurmctld', '-D')
        for node in ('n1', 'n2'):
            self._start('slurmd', '-D', '-N', node)
        self.wait(lambda: self.run('sinfo', '-hN').stdout.count(' idle') == 2)
        return self

    def __exit__(self, *_):
        self.run('scancel', '--full', '--partition=cpu')
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *command):
        log = (self.folder / f'{command[0]}{len(self.daemons)}.out').open('w')
        self.daemons.append(
            subprocess.Popen(
                command, env=self.env, stdout=log, stderr=subprocess.STDOUT
            )
        )

    def run(self, *command, timeout=300, **env):
        """A command of Slurm's user; its output in one text."""
        return subprocess.run(
            list(map(str, command)),
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def wait(self, true, seconds=120):
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not true():
            logs = sorted(self.folder.glob('*.out'))
            assert time.monotonic() < end, {
                x.name: x.read_text() for x in logs
            }
            time.sleep(0.3)
