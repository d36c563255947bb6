"""The stored decisions of a calibration."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically

DYNAMIC, DENSE = 'dynamic', 'dense'
LOOP, BATCH = 'loop', 'batch'
PROGRAM, MODULES = 'program', 'modules'
FLOAT32, BFLOAT16 = 'float32', 'bfloat16'
CHOICES = {
    'precision': (FLOAT32, BFLOAT16),
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
        why: The reason, in words.
        dynamic_ms: Time of the site's layers with channels skipped, the
            shortest of an image, averaged over the images; a layer between
            two sites counts half for each.
        dense_ms: The same with all of the producer's channels computed and
            masked; consumers may skip masked inputs.
        plain_ms: The same in the network without gates.
        keep_ratio: Fraction of channels open on the calibration's images.
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
        threads: Number of threads that torch used.
        backend: ``'kernel'`` or ``'torch'``; ``'none'`` on an accelerator.
        sites: How every site is executed.
        batch: ``'loop'``: the images of a batch run one by one, each with its
            own channels; ``'batch'``: together and masked, as the modules
            run them in any case.
        batch_ms: Time per image of both, if the program runs and skips.
        executor: ``'program'``: the whole backbone is one call of the
            kernel; ``'modules'``: its own modules run.
        executor_why: The reason, in words.
        alone: Steps of the program that run on one thread of several.
        precision: ``'float32'``, or ``'bfloat16'``: of the inputs and the
            weights of convs, where that is faster.
    """

    image_shape: tuple[int, ...]
    threads: int
    backend: str
    sites: dict[str, SiteReport] = field(default_factory=dict)
    batch: str = LOOP
    batch_ms: dict[str, float] = field(default_factory=dict)
    executor: str = PROGRAM
    executor_why: str = ''
    alone: list[str] = field(default_factory=list)
    precision: str = FLOAT32

    def save(self, path: str | Path) -> None:
        """Write JSON to a temporary file, then rename it."""
        text = json.dumps(asdict(self), indent=1) + '\n'
        write_atomically(text.encode(), path)

    @classmethod
    def load(cls, path: str | Path) -> DynamicPlan:
        """Read a file written by :meth:`save`.

        Raises:
            FGCError: The file is missing, or is not a plan.
        """
        try:
            raw = json.loads(Path(path).read_text('utf-8'))
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
                f'{path} is not a plan of dynamic execution; give the file '
                'that DynamicPlan.save wrote, or calibrate again with images.'
            ) from error

    def report(self, shapes: Collection[tuple[int, ...]]) -> dict[str, Any]:
        """How every site is executed, and why.

        Args:
            shapes: (C, H, W) of the images that the model has seen.
        """
        report = asdict(self)
        del report['alone']
        report['notes'] = [
            f'images of size {"x".join(map(str, shape))} were not in the '
            'calibration: results are correct, but whether skipping is '
            'faster was measured at '
            f'{"x".join(map(str, self.image_shape))}.'
            for shape in sorted({*shapes} - {tuple(self.image_shape)})
        ]
        if torch.get_num_threads() != self.threads:
            report['notes'].append(
                f'{torch.get_num_threads()} threads are used, but the '
                f'calibration used {self.threads}.'
            )
        return report

    def check(self, names: list[str]) -> None:
        """Check that the plan was made for a model with these sites.

        Raises:
            FGCError: It was not, or has invalid values.
        """
        self._check_values()
        missing = sorted(set(names) ^ set(self.sites))
        if missing:
            raise FGCError(
                f'the plan and the model differ in {len(missing)} sites '
                f'({missing[0]}, ...), but a plan only fits the config that '
                'it was made for; calibrate again with images.'
            )

    def _check_values(self) -> None:
        values = [(n, getattr(self, n)) for n in CHOICES if n != 'executed']
        values += [('executed', site.executed) for site in self.sites.values()]
        for name, value in values:
            if value not in CHOICES[name]:
                raise FGCError(
                    f'the plan has {name}={value!r}, which is none of '
                    f'{", ".join(CHOICES[name])}; calibrate again with images.'
                )
        if not (
            isinstance(self.batch_ms, dict)
            and _all_are((int, float), self.batch_ms.values())
            and isinstance(self.alone, list)
            and _all_are(str, self.alone)
        ):
            raise FGCError(
                f'the plan has batch_ms={self.batch_ms!r} and '
                f'alone={self.alone!r}, which must be times by name and a '
                'list of steps; calibrate again with images.'
            )
        shape = self.image_shape
        if len(shape) != 3 or not _all_are(int, shape) or min(shape) < 1:
            raise FGCError(
                f'the plan has image_shape={shape}, which is not (3, H, W); '
                'calibrate again with images.'
            )


def _all_are(kinds: Any, values: Iterable[object]) -> bool:
    return all(isinstance(value, kinds) for value in values)
