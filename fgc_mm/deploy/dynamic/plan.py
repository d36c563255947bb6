"""What was decided for a dynamic model: stored, so that it is decided once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically

DYNAMIC, DENSE = 'dynamic', 'dense'
LOOP, BATCH = 'loop', 'batch'
PROGRAM, MODULES = 'program', 'modules'
WORDS = {
    'executor': (PROGRAM, MODULES),
    'batch': (LOOP, BATCH),
    'executed': (DYNAMIC, DENSE),
}


@dataclass
class SiteReport:
    """How a site is executed.

    Attributes:
        executed: ``'dynamic'``: closed channels are skipped; ``'dense'``:
            all are computed and masked.
        why: In words.
        dynamic_ms: Median time of the site's layers per image, channels
            skipped; a layer between two sites counts half for each.
        dense_ms: The same, all channels computed and masked: what its
            producer gives; consumers may leave out what is masked.
        plain_ms: The same in the network without gates.
        keep_ratio: Share of channels open on the calibration's images.
    """

    executed: str
    why: str
    dynamic_ms: float | None = None
    dense_ms: float | None = None
    plain_ms: float | None = None
    keep_ratio: float | None = None


@dataclass
class DynamicPlan:
    """The decisions for one model on one machine.

    Attributes:
        image_shape: (3, H, W) of the calibration's images.
        threads: Threads that torch used.
        backend: ``'kernel'`` or ``'torch'``.
        sites: For every site how it is executed.
        batch: ``'loop'``: several images run one by one, each with its own
            channels; ``'batch'``: together and masked.
        batch_ms: Time per image of both, where it was measured.
        executor: ``'program'``: the whole backbone is one call of the
            kernel; ``'modules'``: its own code runs, layer by layer.
        executor_why: In words.
        alone: Steps of the program that one thread does alone, though there
            are several.
    """

    image_shape: tuple[int, int, int]
    threads: int
    backend: str
    sites: dict[str, SiteReport] = field(default_factory=dict)
    batch: str = LOOP
    batch_ms: dict[str, float] = field(default_factory=dict)
    executor: str = PROGRAM
    executor_why: str = ''
    alone: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """As JSON; written aside and renamed."""
        text = json.dumps(asdict(self), indent=1) + '\n'
        write_atomically(text.encode(), path)

    @classmethod
    def load(cls, path: str | Path) -> DynamicPlan:
        """What :meth:`save` wrote.

        Raises:
            FGCError: The file is not there, or is no plan.
        """
        try:
            raw = json.loads(Path(path).read_text())
            raw['image_shape'] = tuple(raw['image_shape'])
            raw['sites'] = {
                name: SiteReport(**site) for name, site in raw['sites'].items()
            }
            return cls(**raw)
        except OSError as error:
            raise FGCError(
                f'{path} cannot be read ({error.strerror}); give the file '
                'that DynamicPlan.save wrote.'
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FGCError(
                f'{path} is no plan of dynamic execution; give the file that '
                'DynamicPlan.save wrote, or calibrate anew with images.'
            ) from error

    def check(self, names: list[str]) -> None:
        """Whether it was made for a model with these sites.

        Raises:
            FGCError: It was not, or says what no plan says.
        """
        self._check_words()
        missing = sorted(set(names) ^ set(self.sites))
        if missing:
            raise FGCError(
                f'the plan and the model differ in {len(missing)} sites '
                f'({missing[0]}, ...), but a plan serves the config that it '
                'was made for; calibrate anew with images.'
            )

    def _check_words(self) -> None:
        said = [('executor', self.executor), ('batch', self.batch)]
        said += [('executed', site.executed) for site in self.sites.values()]
        for name, word in said:
            if word not in WORDS[name]:
                raise FGCError(
                    f'the plan says {name}={word!r}, which is none of '
                    f'{", ".join(WORDS[name])}; calibrate anew with images.'
                )
        numbers = [isinstance(x, (int, float)) for x in _values(self.batch_ms)]
        texts = [isinstance(x, str) for x in _items(self.alone)]
        if not all([*numbers, *texts]):
            raise FGCError(
                f'the plan says batch_ms={self.batch_ms!r} and '
                f'alone={self.alone!r}, which are no times by name and no '
                'list of steps; calibrate anew with images.'
            )
        shape = self.image_shape
        sizes = [n for n in shape if isinstance(n, int) and n > 0]
        if len(shape) != 3 or len(sizes) != 3:
            raise FGCError(
                f'the plan says image_shape={shape}, which is no (3, H, W); '
                'calibrate anew with images.'
            )


def _values(times: object) -> list[object]:
    return list(times.values()) if isinstance(times, dict) else [None]


def _items(names: object) -> list[object]:
    return names if isinstance(names, list) else [None]
