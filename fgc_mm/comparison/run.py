"""One training run of a comparison; its progress is read from its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgc_mm.command_process import as_typed, command_of
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.reliability.latest_checkpoint import latest_checkpoint
from fgc_mm.reliability.resumable import check_resumable

from ..errors import FGCError

# keys that recipes of older versions lack
OPTIONAL = 'start', 'teacher', 'budget', 'importance', 'pruning_ratio'
# the folder of the images does not change the training
IGNORED = {'data_root'}


@dataclass(frozen=True)
class Method:
    """A method: one row of the table.

    Attributes:
        name: Name of the row; by default the config's stem.
        config: The config file.
        epochs: Number of epochs to train for.
        scaled: Whether ``epochs`` is given, and replaces the config's.
        options: Raw ``--cfg-options`` for every run.
        recipe: Settings that must be equal when the run is resumed.
        data: Name of the data set.
        importance: ``--importance`` of ``fgc-mm prune-static``; None without
            static pruning.
        pruning_ratio: Fraction of the MACs that static pruning removes.
        budget: MACs budget passed to ``fgc-mm plan-budget``, as a fraction
            of the starting network's; None: no planning.
        sweeps: Whether it is also tested at several gate thresholds.
        loads_start: Whether runs load the weights of their start; otherwise
            it is only the teacher of their distillation.
    """

    name: str
    config: Path
    epochs: int
    scaled: bool
    options: tuple[str, ...]
    recipe: dict[str, Any] = field(compare=False)
    data: str
    importance: str | None = None
    pruning_ratio: float = 0.0
    budget: float | None = None
    sweeps: bool = False
    loads_start: bool = True

    @property
    def wants_teacher(self) -> bool:
        """Whether it has a distillation without a checkpoint."""
        distillation = (self.recipe.get('model') or {}).get('distillation')
        return distillation is not None and not distillation.get('checkpoint')


@dataclass
class Run:
    """A method with a seed.

    The next step is determined from the files, so an interrupted comparison
    continues where it stopped.

    Attributes:
        method: The method.
        seed: The random seed.
        folder: The work dir.
        start: The run from whose last checkpoint this one starts, or whose
            network is its teacher.
        state: waiting, pruning, planning, training, testing, done, failed,
            stopped.
        reason: Why it failed or was stopped.
    """

    method: Method
    seed: int
    folder: Path
    start: Run | None = None
    state: str = 'waiting'
    reason: str = ''

    @property
    def name(self) -> str:
        """Name shown to users."""
        return f'{self.method.name} seed {self.seed}'

    @property
    def loads_weights(self) -> bool:
        """Whether it begins with the weights of another run."""
        return self.start is not None and self.method.loads_start

    @property
    def log(self) -> Path:
        """Log file of the commands."""
        return self.folder / 'run.log'

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.folder / f'epoch_{self.method.epochs}.pth'

    @property
    def metrics(self) -> Path:
        """Results file of ``fgc-mm test``."""
        return self.folder / 'metrics.json'

    @property
    def sweep(self) -> Path:
        """Results file at other thresholds of the gates."""
        return self.folder / 'threshold_sweep.json'

    @property
    def config(self) -> Path:
        """The config that is trained."""
        if self.method.importance is None:
            return self.method.config
        return self.folder / 'pruned' / f'{self.method.name}.py'

    @property
    def trained_config(self) -> Path:
        """The resolved config that mmengine saves in the work dir."""
        return self.folder / self.config.name

    def trained(self) -> bool:
        """Whether the last checkpoint exists and is complete."""
        if not self.last_checkpoint.is_file():
            return False
        try:
            check_resumable(self.last_checkpoint)
        except FGCError:
            return False
        return True

    def next_step(self) -> tuple[str, list[str]] | None:
        """State and command of the next step; None if all is done."""
        if not self.trained():
            if not self.config.is_file():
                return 'pruning', self._prune()
            if self.method.budget is not None and not self._planned.is_file():
                return 'planning', self._plan()
            for old in (self.metrics, self.sweep):  # of another training
                old.unlink(missing_ok=True)
            return 'training', self._train()
        return None if self._tested() else ('testing', self._test())

    def log_command(self, command: list[str]) -> None:
        """Stores a command for the report, as a user would type it."""
        with self._commands.open('a', encoding='utf-8') as file:
            file.write(f'{as_typed(command)}\n')

    def logged_commands(self) -> list[str]:
        """The commands that were stored."""
        file = self._commands
        return file.read_text('utf-8').splitlines() if file.is_file() else []

    @property
    def _planned(self) -> Path:
        return self.folder / 'budget.json'

    @property
    def _commands(self) -> Path:
        return self.folder / 'commands.txt'

    def check_recipe(self) -> None:
        """Check that the recipe equals that of the existing run.

        Raises:
            FGCError: The folder contains a run with other settings.
        """
        if not self._recipe_file.is_file():
            return
        stored = json.loads(self._recipe_file.read_text('utf-8'))
        change = self.recipe_change(stored)
        if change is not None:
            raise FGCError(
                f'{self.folder} was begun with other settings ({change}): '
                'a run can only be continued with the same settings; use '
                'another --work-dir, or remove that folder.'
            )

    def recipe_change(self, stored: dict[str, Any]) -> str | None:
        """The first difference from a stored recipe; None if equal."""
        # a recipe of an older version lacks these keys; they are None
        old, new = {**dict.fromkeys(OPTIONAL), **stored}, self.full_recipe()
        if 'seed' not in stored:  # the epochs alone are known
            old = stored
        for role in 'start', 'teacher':  # likewise
            if isinstance(old.get(role), dict) and new.get(role):
                new[role] = {key: new[role].get(key) for key in old[role]}
        return _difference(old, {key: new.get(key) for key in old})

    def write_recipe(self) -> None:
        """Write the recipe file, if there is none.

        Raises:
            FGCError: As :meth:`check_recipe`.
        """
        self.check_recipe()
        if not self._recipe_file.is_file():
            text = json.dumps(self.full_recipe(), indent=1, sort_keys=True)
            write_atomically(text.encode(), self._recipe_file)

    @property
    def _recipe_file(self) -> Path:
        return self.folder / 'recipe.json'

    def full_recipe(self) -> dict[str, Any]:
        """Recipe of the method, seed and recipe of the start.

        It is returned as after a JSON round trip, so that it compares equal.
        """
        recipe = dict(self.method.recipe, seed=self.seed)
        if self.start is not None:
            role = 'start' if self.method.loads_start else 'teacher'
            recipe[role] = self.start.method.recipe
        return json.loads(json.dumps(recipe, default=str))

    def _prune(self) -> list[str]:
        return command_of(
            'prune-static', self.method.config, self._start_weights(),
            '--importance', self.method.importance,
            '--pruning-ratio', self.method.pruning_ratio,
            '--seed', self.seed, '--name', self.method.name,
            '--out', self.config.parent, *_options(self.method.options),
        )  # fmt: skip

    def _plan(self) -> list[str]:
        return command_of(
            'plan-budget', self.method.config, self._start_weights(),
            '--budget', self.method.budget, '--out', self._planned,
            *_options(self.method.options),
        )  # fmt: skip

    def _own_options(self) -> list[str]:
        """``--cfg-options`` of training and test."""
        if self.method.importance is not None:  # the pruned config has them
            return []
        options = list(self.method.options)
        if self.method.budget is not None:
            options += json.loads(self._planned.read_text('utf-8'))['options']
        return options

    def _train(self) -> list[str]:
        options, arguments = self._own_options(), []
        if self.method.importance is not None:
            # scaling to the epochs must not replace them
            given = self.method.options
            options += [x for x in given if not x.startswith('model.')]
        options.append(f'randomness.seed={self.seed}')
        if self.method.scaled:
            arguments += ['--epochs', self.method.epochs]
        if self.start is not None and self.method.wants_teacher:
            options.append(
                f'model.distillation.checkpoint={self._start_weights()}'
            )
        if latest_checkpoint(self.folder)[0] is not None:
            arguments.append('--resume')
        elif self.loads_weights:
            options.append(f'load_from={self._start_checkpoint()}')
        return command_of(
            'train', self.config, '--work-dir', self.folder,
            *arguments, *_options(options),
        )  # fmt: skip

    def _tested(self) -> bool:
        swept = self.sweep.is_file() or not self.method.sweeps
        return swept and self.metrics.is_file()

    def _test(self) -> list[str]:
        sweep = ['--threshold-sweep', self.sweep] if self.method.sweeps else []
        return command_of(
            'test', self.trained_config, self.last_checkpoint,
            '--work-dir', self.folder / 'test', '--out', self.metrics,
            '--out-item', 'metrics', *sweep, *_options(self._own_options()),
        )  # fmt: skip

    def _start_weights(self) -> Path:
        assert self.start is not None  # checked in plan.py
        return self.start.last_checkpoint

    def _start_checkpoint(self) -> Path:
        if self.method.importance is None:
            return self._start_weights()
        return self.config.with_suffix('.pth')


def _options(pairs: list[str] | tuple[str, ...]) -> list[str]:
    return ['--cfg-options', *pairs] if pairs else []


def _difference(old: Any, new: Any, path: str = '') -> str | None:
    """Description of the first difference of two nested settings."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new} - IGNORED)
        pairs = ((k, old.get(k), new.get(k)) for k in keys)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f'{path} had {len(old)} entries and has {len(new)}'
        pairs = ((str(i), a, b) for i, (a, b) in enumerate(zip(old, new)))
    else:
        return None if old == new else f'{path} was {old!r} and is {new!r}'
    found = (_difference(a, b, f'{path}.{k}'.strip('.')) for k, a, b in pairs)
    return next(filter(None, found), None)
