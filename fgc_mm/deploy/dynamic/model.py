"""A gated classifier that computes the open channels of an image only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from fgc_mm.deploy.dynamic.kernel import build_name, load_kernel
from fgc_mm.deploy.dynamic.layers import DynamicLayer
from fgc_mm.deploy.dynamic.plan import BATCH, LOOP, PROGRAM, DynamicPlan
from fgc_mm.deploy.dynamic.port import DynamicPort
from fgc_mm.deploy.dynamic.program import NetworkProgram
from fgc_mm.deploy.dynamic.record import NotRecordable
from fgc_mm.deploy.dynamic.tracing import refuse_scripting, refuse_tracing
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.models.gated_backbone import as_outputs
from fgc_mm.sites import GateRecord, SitePort
from fgc_mm.sites.call import GatedCall

Ports = list[SitePort | DynamicPort]
REPORTED = (
    'backend',
    'threads',
    'image_shape',
    'batch',
    'executor',
    'executor_why',
)
MOST_PROGRAMS = 8  # image sizes, times choices of sites
# a network is watched while its program is made: by one thread only
MAKING = threading.Lock()


class DynamicBackbone(GatedBackbone):
    """A gated backbone in evaluation whose sites skip closed channels.

    Args:
        gated: The backbone whose layers have been made dynamic; they stay
            its own.
        ports: One per site, in order.

    Attributes:
        batch: What is done with several images, ``'loop'`` or ``'batch'``.
        executor: ``'program'``: one call of the kernel, where it can;
            ``'modules'``: the backbone's own code.
        dynamic_ports: Those of the sites that can be dynamic.
        alone: See :meth:`keep_alone`.
    """

    def __init__(self, gated: GatedBackbone, ports: Ports) -> None:
        BaseModule.__init__(self)
        self.backbone = gated.backbone
        self.sites = gated.sites
        self.found = gated.found
        self.gates = gated.gates
        self.batch = LOOP
        self.executor = PROGRAM
        self.alone: set[str] = set()
        self._ports = ports
        self.dynamic_ports = [p for p in ports if isinstance(p, DynamicPort)]
        self._programs: dict[tuple, NetworkProgram | str] = {}
        self._register_load_state_dict_pre_hook(self._forget)
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _programs={})  # made anew

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The wrapped backbone's own outputs, gated."""
        refuse_tracing(x)
        program = self.program_of(x)
        if program is None:
            return self.forward_gated(x)[0]
        return program.run(x)[0]

    @torch.no_grad()
    def forward_gated(
        self, x: Tensor, keep_activation: bool | None = None
    ) -> tuple[tuple[Tensor, ...], list[GateRecord]]:
        """As :meth:`GatedBackbone.forward_gated`.

        Several images run one by one, each with its own channels, or all
        together with every channel, whichever was faster in the calibration.
        """
        refuse_tracing(x)
        program = None if keep_activation else self.program_of(x)
        if program is not None:
            outputs, decisions = program.run(x)
            return outputs, program.records(decisions)
        if len(x) == 1:
            return super().forward_gated(x, keep_activation)
        if len(x) == 0 or self.batch == BATCH or not self._skips():
            return self._all_channels(x, keep_activation)
        runs = [
            super(DynamicBackbone, self).forward_gated(one, keep_activation)
            for one in x.split(1)
        ]
        outputs = _stack([outputs for outputs, _ in runs])
        return outputs, [_join(r) for r in zip(*(r for _, r in runs))]

    def program(
        self,
        image: Tensor,
        behind: Sequence[nn.Module] = (),
        gated: bool = True,
    ) -> NetworkProgram | str:
        """The backbone as one call of the kernel, or why it is none.

        Args:
            image: (1, 3, H, W), of the size that the program is for.
            behind: Modules behind the backbone that belong to the call.
            gated: Else the dense network.
        """
        skips = tuple((p.compact, p.threshold) for p in self.dynamic_ports)
        key = (tuple(image.shape[1:]), skips, gated, tuple(behind))
        program = self._programs.get(key)
        if program is not None:
            return program
        with MAKING:
            if key not in self._programs:
                while len(self._programs) >= MOST_PROGRAMS:
                    del self._programs[next(iter(self._programs))]
                ports = self._ports if gated else ()
                self._programs[key] = self._make_program(image, behind, ports)
            return self._programs[key]

    def _make_program(
        self, image: Tensor, behind: Sequence[nn.Module], ports: Ports
    ) -> NetworkProgram | str:
        kernel, problem = load_kernel()
        if kernel is None:
            return f'there is no kernel: {problem}'
        if behind:
            behind = (_Outputs(), *behind)
        try:
            program = NetworkProgram(
                self.backbone, ports, image, kernel, behind
            )
        except NotRecordable as error:
            return str(error)
        program.keep_alone(self.alone)
        return program

    def keep_alone(self, names: Collection[str]) -> None:
        """Steps of its programs that are not shared out to threads."""
        self.alone = set(names)
        for program in self._programs.values():
            if not isinstance(program, str):
                program.keep_alone(self.alone)

    def program_of(
        self, x: Tensor, behind: Sequence[nn.Module] = ()
    ) -> NetworkProgram | None:
        """What runs these images in one call, unless the modules do."""
        alone = len(x) == 1 or self.batch == LOOP
        if self.executor != PROGRAM or not alone or len(x) == 0:
            return None
        if x.dim() != 4 or x.dtype != torch.float32 or x.device.type != 'cpu':
            return None
        program = self.program(x[:1], behind)
        return None if isinstance(program, str) else program

    def _skips(self) -> bool:
        return any(port.compact for port in self.dynamic_ports)

    def _all_channels(
        self, x: Tensor, keep_activation: bool | None
    ) -> tuple[tuple[Tensor, ...], list[GateRecord]]:
        call = GatedCall(self._ports, bool(keep_activation), skip=False)
        return self._run(call, x)

    def _forget(self, *_: Any) -> None:
        """What was made of weights is made anew when it is needed."""
        self._programs.clear()
        for port in self.dynamic_ports:
            port.forget()
        for layer in self.layers():
            layer.forget()

    def layers(self) -> list[DynamicLayer]:
        """All that take and give listed channels."""
        return [m for m in self.modules() if isinstance(m, DynamicLayer)]

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> DynamicBackbone:
        """As ``nn.Module._apply``, but dtype and device stay."""
        for layer in self.layers()[:1]:
            old = layer.weight.detach().flatten()[:0]
            new = fn(old)
            if (new.dtype, new.device) != (old.dtype, old.device):
                raise FGCError(
                    f'a dynamic model cannot become {new.dtype} on '
                    f'{new.device}, since it was made for {old.dtype} on '
                    f'{old.device}; convert the model that it was made '
                    'from, and make it anew.'
                )
        super()._apply(fn, recurse)
        self._forget()
        return self

    __prepare_scriptable__ = refuse_scripting

    def train(self, mode: bool = True) -> DynamicBackbone:
        """Refuses: what is folded cannot be trained."""
        _refuse_training(mode)
        return super().train(mode)


class DynamicImageClassifier(GatedImageClassifier):
    """A gated classifier in evaluation that skips closed channels.

    Made by :func:`fgc_mm.deploy.to_dynamic`. Its predictions carry MACs as
    those of the model that it was made from.

    Args:
        source: The model that it was made from; it counts the MACs.
        backbone: The dynamic backbone.
        neck: As in ``ImageClassifier``.
        head: As in ``ImageClassifier``.
        data_preprocessor: As in ``ImageClassifier``.
    """

    def __init__(
        self,
        source: GatedImageClassifier,
        backbone: DynamicBackbone,
        neck: nn.Module | None,
        head: nn.Module | None,
        data_preprocessor: nn.Module | None,
    ) -> None:
        super().__init__(
            backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
        )
        self._source = [source]  # in a list: none of its modules is ours
        self.plan: DynamicPlan | None = None
        self._seen: set[tuple[int, ...]] = set()
        self.eval().requires_grad_(False)

    def _leave_out_unread(self) -> None:
        """The source has left them out already."""

    def macs_table(self, image_shape: tuple[int, ...]) -> MACsTable:
        """Of the model that this one was made from."""
        return self._source[0].macs_table(image_shape)

    def loss(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """Refuses: what is folded cannot be trained."""
        _refuse_training(True)
        return {}

    @torch.no_grad()
    def forward(
        self,
        inputs: Tensor,
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """As ``ImageClassifier.forward``, without gradients."""
        refuse_tracing(inputs)
        program = None
        if isinstance(inputs, Tensor):
            self._seen.add(tuple(inputs.shape[1:]))
            if mode == 'tensor':
                program = self.program(inputs)
        if program is None:
            return super().forward(inputs, data_samples, mode)
        return program.run(inputs)[0]

    def program(self, images: Tensor) -> NetworkProgram | None:
        """Images to logits as one call of the kernel, if they run so."""
        if not self.with_head:
            return None
        behind = (self.neck, self.head) if self.with_neck else (self.head,)
        return self.backbone.program_of(images, behind)

    __prepare_scriptable__ = refuse_scripting

    def train(self, mode: bool = True) -> DynamicImageClassifier:
        """Refuses: what is folded cannot be trained."""
        _refuse_training(mode)
        return super().train(mode)

    def dynamic_report(self) -> dict[str, Any]:
        """What runs how, and why.

        Returns:
            ``sites``: for every site ``executed`` (``'dynamic'`` or
            ``'dense'``), ``why``, ``dynamic_ms``, ``dense_ms``,
            ``plain_ms``, ``keep_ratio``; ``backend``, ``threads``,
            ``image_shape``, ``batch`` and ``executor`` of the calibration,
            see :class:`DynamicPlan`; ``build`` of the kernel, if it is used;
            ``notes``, sentences on what it did not see.
        """
        if self.plan is None:
            return {'sites': {}, 'notes': ['nothing was decided yet']}
        report = {name: getattr(self.plan, name) for name in REPORTED}
        report['batch_ms'] = dict(self.plan.batch_ms)
        if self.plan.backend == 'kernel':
            report['build'] = build_name()
        report['sites'] = {
            name: dict(vars(site)) for name, site in self.plan.sites.items()
        }
        report['notes'] = self._notes()
        return report

    def _notes(self) -> list[str]:
        notes = []
        for shape in sorted(self._seen - {tuple(self.plan.image_shape)}):
            notes.append(
                f'images of {"x".join(map(str, shape))} came, which the '
                'calibration never saw: results are right, but whether '
                'skipping pays was decided at '
                f'{"x".join(map(str, self.plan.image_shape))}.'
            )
        if torch.get_num_threads() != self.plan.threads:
            notes.append(
                f'{torch.get_num_threads()} threads run what was decided '
                f'with {self.plan.threads}.'
            )
        return notes


class _Outputs(nn.Module):
    """What a backbone hands on, see :func:`as_outputs`."""

    def forward(self, outputs: Any) -> Any:
        return as_outputs(outputs)


def _refuse_training(mode: bool) -> None:
    if mode:
        raise FGCError(
            'a dynamic model runs in evaluation only, since its norms are '
            'folded; train the model that it was made from.'
        )


def _stack(outputs: list[Any]) -> Any:
    """Outputs of single images as those of a batch."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs)
    return type(first)(_stack(list(parts)) for parts in zip(*outputs))


def _join(records: tuple[GateRecord, ...]) -> GateRecord:
    """Records of single images as that of a batch."""
    fields = [
        torch.cat([getattr(record, name) for record in records])
        for name in ('logits', 'probs', 'mask')
    ]
    return GateRecord(records[0].site, None, *fields)
