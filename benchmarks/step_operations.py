"""Operations of a training step on an accelerator, counted without one.

    python benchmarks/step_operations.py

One whole step of ResNet-20 (dense, BAS, FGC): inputs, forward and backward
pass, losses, optimizer, hooks. It runs on tensors without data (the ``meta``
device), for which the code takes the same branches as on an accelerator, so
the numbers are exact and the same everywhere:

- operations that compute something, each at least one launch;
- reads, for which the host waits: values, sizes, copies to the CPU;
- copies to the device for which it waits;
- parameter groups of the optimizer.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from operation_counter import OperationCounter
from torch import Tensor, nn
from training import build_training, random_batch, read_config

from fgc_mm.cli.arguments import text_parser
from fgc_mm.functional import mask_channels
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.sites import layer_channels

# a config, and an epoch after the warm-up of the coupling
STEPS = {
    'dense': ('dense_resnet20_cifar10', 0),
    'BAS': ('bas_resnet20_cifar10', 200),
    'FGC': ('fgc_resnet20_cifar10', 200),
}
FORWARD = ('inputs', 'network', 'gates', 'masks', 'losses', 'coupling')
PARTS = (
    *FORWARD,
    *(f'{part}, backward' for part in FORWARD[1:]),
    'backward',
    'optimizer',
    'bank write',
    'other hooks',
)
# what gates and coupling themselves compute
OWN = ('gates', 'coupling', 'bank write')


class Run:
    """A config's model, optimizer and hooks, as a Runner holds them.

    Args:
        config: Name of the config.
        epoch: The epoch of the steps.
        images: Number of images in a batch.
        rows: Number of images in the training set.
        device: Of model and data.
        options: Changes of the config.
    """

    def __init__(
        self,
        config: str,
        epoch: int,
        images: int,
        rows: int,
        device: str,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        cfg = read_config(config)
        cfg.merge_from_dict(dict(options or {}))
        self.model, self.optim_wrapper = build_training(cfg, epoch, device)
        if device == 'meta':
            for group in self.optim_wrapper.optimizer.param_groups:
                group['foreach'] = True  # as torch chooses on CUDA
        for loss in self.coupled():
            loss.build_banks(self.model.backbone.sites, rows)
            for banks in loss.banks.values():
                banks.feature.to(device)
                banks.gate.to(device)
        self.message_hub = MessageHub.get_instance(f'{config}_{device}')
        self.epoch, self.iter, self.images = epoch, 0, images
        self.train_dataloader = range(1 + rows // images)
        self.cfg = cfg
        self.bank_hook, self.hooks = self._build_hooks(cfg)

    def coupled(self) -> list[FeatureGateCouplingLoss]:
        """The coupling losses."""
        losses = getattr(self.model, 'gate_losses', ())
        return [x for x in losses if isinstance(x, FeatureGateCouplingLoss)]

    def step(
        self,
        part: Callable[[str], AbstractContextManager],
        data: dict[str, Any] | None = None,
    ) -> None:
        """One step, in parts, on a batch of a data loader or random images."""
        data = data or random_batch(self.cfg, self.images)
        with part('inputs'):
            data = self.model.data_preprocessor(data, True)
        with part('network'), self.optim_wrapper.optim_context(self.model):
            losses = self.model(**data, mode='loss')
        with part('losses'):
            total, outputs = self.model.parse_losses(losses)
        with part('backward'):
            self.optim_wrapper.backward(total)
        with part('optimizer'):
            self.optim_wrapper.step()
            self.optim_wrapper.zero_grad()
        with part('bank write'):
            self._after_train_iter(self.bank_hook, outputs)
        with part('other hooks'):
            self._after_train_iter(self.hooks, outputs)
        self.iter += 1

    def _after_train_iter(self, hooks: list[Hook], outputs: dict) -> None:
        for hook in hooks:
            hook.after_train_iter(self, self.iter, None, outputs)

    def _build_hooks(self, cfg: Config) -> tuple[list[Hook], list[Hook]]:
        """Those that use tensors in each step: of banks, and the others."""
        defaults = dict(runtime_info=dict(type='RuntimeInfoHook'))
        defaults.update(cfg.default_hooks)
        named = ('runtime_info', 'finite_loss')
        others = [HOOKS.build(defaults[name]) for name in named]
        banks = [
            HOOKS.build(hook)
            for hook in cfg.get('custom_hooks', ())
            if hook['type'].endswith('FGCMemoryBankHook')
        ]
        for hook in banks:
            hook._losses = {loss.name: loss for loss in self.coupled()}
        return banks, others


def count_step(
    name: str, images: int = 256, rows: int = 50_000, device: str = 'meta'
) -> tuple[OperationCounter, int]:
    """The second step of a config, and the optimizer's parameter groups.

    Args:
        name: A key of ``STEPS``.
        images: Of the batch.
        rows: Of a memory bank.
        device: Where it runs.
    """
    run = Run(*STEPS[name], images, rows, device)
    counter = OperationCounter(device)
    _divide(run.model, counter)
    masks = patch.object(layer_channels, 'mask_channels', _masks(counter))
    with counter, masks:
        run.step(counter.part)  # makes the optimizer's state and tables
        counter.restart()
        run.step(counter.part)
    return counter, len(run.optim_wrapper.optimizer.param_groups)


def _divide(model: nn.Module, counter: OperationCounter) -> None:
    """Counts gates, losses and coupling apart from the network."""
    parts = [(model.head.loss_module, 'losses')]
    gates = getattr(model.backbone, 'gates', {})
    parts += [(gates[key], 'gates') for key in gates]
    for loss in getattr(model, 'gate_losses', ()):
        couples = isinstance(loss, FeatureGateCouplingLoss)
        parts.append((loss, 'coupling' if couples else 'losses'))
    for module, name in parts:
        _count_as(module, name, counter)


def _masks(counter: OperationCounter) -> Callable[..., Tensor]:
    def masked(*args: Any) -> Tensor:
        with counter.part('masks'):
            return mask_channels(*args)

    return masked


def _count_as(module: nn.Module, name: str, counter: OperationCounter) -> None:
    forward = module.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        with counter.part(name):
            return forward(*args, **kwargs)

    module.forward = counted


def beyond(counter: OperationCounter, masks: bool) -> int:
    """Operations beyond coupling and the gates' own layers.

    Args:
        counter: Of a step.
        masks: Whether multiplying by the gates' masks counts.
    """
    own = OWN if masks else (*OWN, 'masks')
    parts = counter.by_part().items()
    return sum(count for part, count in parts if not part.startswith(own))


def report(images: int, rows: int, device: str, names: bool) -> None:
    """Print the table of all steps."""
    counted = {step: count_step(step, images, rows, device) for step in STEPS}
    lines = {part: [c.by_part()[part] for c, _ in counted.values()]
             for part in PARTS}  # fmt: skip
    counters = [counter for counter, _ in counted.values()]
    lines['all operations'] = [c.operations.total() for c in counters]
    lines['beyond gates, coupling'] = [beyond(c, True) for c in counters]
    lines['and masks'] = [beyond(c, False) for c in counters]
    lines['reads'] = [c.reads.total() for c in counters]
    lines['copies'] = [c.copies for c in counters]
    lines['parameter groups'] = [groups for _, groups in counted.values()]
    print(f'{f"a step on {device}":24s}' + ''.join(f'{s:>8s}' for s in STEPS))
    for name, values in lines.items():
        print(f'{name:24s}' + ''.join(f'{value:8d}' for value in values))
    if names:
        for (part, name), count in sorted(counters[-1].operations.items()):
            print(f'{part:24s}{name:40s}{count:5d}')
        print(dict(+counters[-1].reads))


def main() -> None:
    """The table."""
    parser = text_parser(__doc__)
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--rows', type=int, default=50_000)
    parser.add_argument('--device', default='meta')
    parser.add_argument(
        '--names', action='store_true', help='list the operations of FGC'
    )
    args = parser.parse_args()
    logging.disable(logging.INFO)  # mmengine lists every gate parameter
    report(args.images, args.rows, args.device, args.names)


if __name__ == '__main__':
    main()
