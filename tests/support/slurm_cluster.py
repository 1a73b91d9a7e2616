"""A SLURM cluster on this machine, with its own daemons. It has two nodes with one CPU core each.

There are two partitions. A job in `high` preempts jobs in `low`, which are warned `GRACE_S` seconds
before, and are then requeued.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
GRACE_S = 60
CONF = """
ClusterName=mmpt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
ReturnToService=2
MpiDefault=none
KillWait=5
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s}
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


def missing_program() -> str | None:
    """Returns the name of a program that is not installed. Debian has them in `slurm-wlm`."""
    return next((name for name in PROGRAMS if _find(name) is None), None)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts a cluster, and yields the variables with which the programs of SLURM find it.

    Args:
        folder: for its configuration, state and logs.
    Raises:
        OSError: the cluster does not start. The message is the reason.
    """
    conf = folder / "slurm.conf"
    settings = {
        "host": socket.gethostname().partition(".")[0],
        "user": getpass.getuser(),
    }
    conf.write_text(
        CONF.format(folder=folder, ports=_free_ports(3), grace_s=GRACE_S, **settings)
    )
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    env = {"SLURM_CONF": str(conf)}
    files = [
        f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")
    ]
    daemons = [
        [
            _find("munged"),
            "--force",
            "--foreground",
            f"--socket={folder}/munge.socket",
            *files,
        ],
        [_find("slurmctld"), "-D", "-f", str(conf)],
        *(
            [_find("slurmd"), "-D", "-f", str(conf), "-N", node]
            for node in ("n1", "n2")
        ),
    ]
    processes = []
    try:
        with open(folder / "daemons.log", "w") as log:
            for command in daemons:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=log,
                        env=os.environ | env,
                        start_new_session=True,
                    )
                )
                time.sleep(0.5)
        _wait_for_nodes(env, folder)
        yield env
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _find(name: str) -> str | None:
    """Returns the path of a program. Daemons may be in a folder that is not on a user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for_nodes(env: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        shown = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition", "low", "--format", "%T"],
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.stdout.split() == ["idle", "idle"]:
            return
        time.sleep(0.2)
    logs = [path.read_text()[-500:] for path in folder.glob("*.log")]
    raise OSError(f"SLURM does not start: {shown.stderr} {' '.join(logs)}")
