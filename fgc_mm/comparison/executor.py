"""Interface of what starts the runs of a comparison."""

from typing import NamedTuple, Protocol

from .run import Run


class Event(NamedTuple):
    """A new state of a run, or the end of what was started for it.

    Attributes:
        name: Of the run.
        state: Its new state; '' if what was started has ended.
        code: Exit code of what has ended.
        reason: Of the state or of the code; '' if the log tells it.
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
        """Whether something that was started has not ended."""

    def start(self, run: Run, step: str, command: list[str]) -> str:
        """Starts the next step of a run; returns the run's state."""

    def poll(self) -> list[Event]:
        """What has happened since the last call."""

    def stop(self) -> None:
        """Asks all that was started to save and exit."""
