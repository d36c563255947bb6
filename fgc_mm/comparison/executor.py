"""Interface of the executors, which start the runs of a comparison."""

from typing import NamedTuple, Protocol

from .run import Run


class Event(NamedTuple):
    """A new state of a run, or the end of a command or job of it.

    Attributes:
        name: Name of the run.
        state: Its new state; '' if its command or job has ended.
        code: Exit code of the command or job that has ended.
        reason: Reason of the state or code; '' if it is in the log.
    """

    name: str
    state: str = ''
    code: int = 0
    reason: str = ''


class Executor(Protocol):
    """Starts commands, or jobs, of a limited number of runs at a time."""

    @property
    def free(self) -> bool:
        """Whether another run can be started."""

    @property
    def busy(self) -> bool:
        """Whether some command or job has not ended."""

    def start(self, run: Run, step: str, command: list[str]) -> str:
        """Starts the next step of a run; returns the run's state."""

    def poll(self) -> list[Event]:
        """The events since the last call."""

    def stop(self) -> None:
        """Makes all commands or jobs save and exit."""
