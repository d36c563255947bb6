"""A gated classifier that computes only the open channels of an image."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from fgc_mm.deploy.comparing import TOLERANCES, output_difference
from fgc_mm.deploy.dynamic.dynamic_plan import (
    BFLOAT16,
    FLOAT32,
    LOOP,
    MODULES,
    PROGRAM,
    DynamicPlan,
)
from fgc_mm.deploy.dynamic.programs import (
    ExecutableProgram,
    KernelProgram,
    TorchProgram,
    records_of,
)
from fgc_mm.deploy.dynamic.tracing import refuse_scripting, refuse_tracing
from fgc_mm.deploy.graph.capture import CannotCapture
from fgc_mm.deploy.graph.lower import CannotLower
from fgc_mm.deploy.graph.network import CapturedNetwork, listed_graph
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.models.gated_backbone import as_outputs
from fgc_mm.models.record_collector import collectors_of
from fgc_mm.runtime.errors import error_line
from fgc_mm.sites import GateRecord
from fgc_mm.sites.call import tensors

MAX_SIZES = 8  # of images, with programs
MAX_PROGRAMS = 8  # of a size, for different thresholds and choices of sites
# The programs of a size that was not used in IDLE_CALLS calls are replaced by
# those of a size that was asked for MISSING_CALLS times.
IDLE_CALLS, MISSING_CALLS = 100, 8
MAX_MISSING = 1000  # sizes of which this is counted
_VERSION = attrgetter('_version')
# one thread at a time captures and compiles a network
BUILD_LOCK = threading.RLock()


def _renew_lock() -> None:
    """For a child process: a thread of the parent may hold the lock."""
    global BUILD_LOCK
    BUILD_LOCK = threading.RLock()


at_fork = getattr(os, 'register_at_fork', None)  # not on Windows
if at_fork is not None:
    at_fork(after_in_child=_renew_lock)


class DynamicBackbone(GatedBackbone):
    """A gated backbone in evaluation whose sites skip closed channels.

    Made by :func:`fgc_mm.deploy.to_dynamic`, alone or in a
    :class:`DynamicImageClassifier`. Its modules are those of the masked
    backbone, hooks included; for every image size a program is made from
    them, which runs instead. It is made again after parameters or buffers
    were changed in place or loaded; changes through ``.data``, which torch
    does not count, and replaced modules and tensors are not noticed.

    Args:
        gated: The masked backbone, whose modules are taken over.

    Attributes:
        kernel: Whether programs run in the compiled runtime.
        batch: How several images run, ``'loop'`` or ``'batch'``.
        executor: ``'program'``: a program where one can be made;
            ``'modules'``: the network's own modules, masked.
        dense: Sites that compute all channels, and why.
        single_threaded: See :meth:`set_single_threaded`.
        following: Modules that usually run after it, captured in one pass.
        plan: How every site is executed.
        build: Name of the runtime's build, if the kernel is used.
        precision: Requested for its programs, see :meth:`set_precision`.
        computes_in: The precision that this CPU uses for them.
    """

    def __init__(self, gated: GatedBackbone, kernel: bool = False) -> None:
        BaseModule.__init__(self)
        self.backbone = gated.backbone
        self.sites = gated.sites
        self.found = gated.found
        self.gates = gated.gates
        self._site_hooks = gated._site_hooks
        self.kernel = kernel
        self.batch = LOOP
        self.executor = PROGRAM
        self.dense: dict[str, str] = {}
        self.single_threaded: set[str] = set()
        self.following: tuple[nn.Module, ...] = ()
        self.plan: DynamicPlan | None = None
        self.build = ''
        self.precision = self.computes_in = FLOAT32
        self._seen_shapes: set[tuple[int, ...]] = set()
        self._captured: dict[tuple, CapturedNetwork | str] = {}
        self._programs: dict[tuple, ExecutableProgram | str] = {}
        # of sizes: the last call, and calls without room for a program
        self._calls = 0
        self._last_call: dict[tuple, int] = {}
        self._missing: Counter[tuple] = Counter()
        self._weights: list[Tensor] = []
        self._weights_version = 0
        self._register_load_state_dict_pre_hook(self._clear_programs)
        self._register_load_state_dict_pre_hook(self._rename_plain_keys)
        self._register_load_state_dict_pre_hook(self._refuse_other_gates)
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        # programs are not pickled
        return dict(self.__dict__, _programs={}, _captured={}, _weights=[])

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The wrapped backbone's outputs, gated."""
        refuse_tracing(x)
        if isinstance(x, Tensor):
            self._seen_shapes.add(tuple(x.shape[1:]))
        program = self.program_of(x)
        if program is None or collectors_of(self):
            return super().forward(x)
        return program.run(x, decisions=False)[0]

    @torch.no_grad()
    def forward_gated(
        self, x: Tensor, keep_activation: bool | None = None
    ) -> tuple[tuple[Tensor, ...], list[GateRecord]]:
        """As :meth:`GatedBackbone.forward_gated`.

        Several images run one by one, each with its own channels, or all
        together and masked, whichever was faster in the calibration.

        Raises:
            FGCError: Activations are requested, which are not all computed.
        """
        refuse_tracing(x)
        if keep_activation:
            raise FGCError(
                'keep_activation=True needs channels that dynamic execution '
                'does not compute; use the masked model.'
            )
        program = self.program_of(x)
        if program is None:
            return super().forward_gated(x, False)
        outputs, decisions = program.run(x)
        return outputs, records_of(self.sites, decisions)

    def program(
        self,
        image: Tensor,
        following: Sequence[nn.Module] = (),
        gated: bool = True,
        dense: Mapping[str, str] | None = None,
    ) -> ExecutableProgram | str:
        """The backbone as a program, or the reason why there is none.

        Args:
            image: (1, 3, H, W), of the size of the program.
            following: Modules after the backbone to include.
            gated: If false, the network without gates.
            dense: Sites that compute all channels; ``None``: :attr:`dense`.
        """
        dense = self.dense if dense is None else dense
        # thresholds are plain attributes, which may have changed
        gates = self.gates._modules.values()
        thresholds = tuple([_threshold(gate) for gate in gates])
        seen = (tuple(image.shape[1:]), thresholds)
        key = (*seen, tuple(following), gated, tuple(dense))
        unchanged = self._version() == self._weights_version
        program = self._programs.get(key)
        if unchanged and program is not None:
            self._calls += 1
            self._last_call[key[0]] = self._calls
            return program
        if not image.isfinite().all():
            return 'the image has nan or inf, so it cannot be checked'
        with BUILD_LOCK, torch.autocast('cpu', enabled=False):
            if self._version() != self._weights_version:
                self._clear_programs()
            if key not in self._programs:
                if not self._make_room(key[0]):
                    return f'{MAX_SIZES} other sizes have programs'
                # before the weights are read: another thread may change them
                self._track(self, *self.following, *following)
                captured = self._capture(seen, image, tuple(following))
                program = self._make_program(
                    captured, bool(following), gated, dense
                )
                if gated and not isinstance(program, str):
                    problem = self._check_program(program, image, following)
                    program = problem or program
                self._programs[key] = program
            return self._programs[key]

    def _make_room(self, size: tuple) -> bool:
        """Whether another program may be made; may drop unused ones."""
        self._calls += 1
        own = [other for other in self._programs if other[0] == size]
        for other in own[: len(own) + 1 - MAX_PROGRAMS]:
            del self._programs[other]
        sizes = {other[0] for other in self._programs}
        if size not in sizes and len(sizes) >= MAX_SIZES:
            if len(self._missing) > MAX_MISSING:
                self._missing.clear()
            self._missing[size] += 1
            oldest = min(sizes, key=self._last_call.__getitem__)
            idle = self._calls - self._last_call[oldest]
            if idle < IDLE_CALLS or self._missing[size] < MISSING_CALLS:
                return False
            for other in [x for x in self._programs if x[0] == oldest]:
                del self._programs[other]
            self._missing.clear()
        self._last_call[size] = self._calls
        return True

    def drop_unused_programs(self) -> None:
        """Drop what was made for a calibration only."""
        chosen = (True, tuple(self.dense))
        for key in list(self._programs):
            if self.executor != PROGRAM or key[-2:] != chosen:
                del self._programs[key]
        self._captured.clear()

    def _track(self, *modules: nn.Module) -> None:
        """Watch their parameters and buffers that count changes in place.

        Earlier programs keep the versions of theirs.
        """
        known = {id(weight) for weight in self._weights}
        added = {
            id(weight): weight
            for module in modules
            for weight in (*module.parameters(), *module.buffers())
            if not weight.is_inference() and id(weight) not in known
        }
        self._weights_version += sum(x._version for x in added.values())
        self._weights = [*self._weights, *added.values()]

    def _version(self) -> int:
        """Changes whenever a parameter or buffer is changed in place."""
        return sum(map(_VERSION, self._weights))  # for every call

    @torch.no_grad()
    def _check_program(
        self,
        program: ExecutableProgram,
        image: Tensor,
        following: Sequence[nn.Module],
    ) -> str:
        """How a program's results on an image are wrong; '' if correct."""
        want, records = super().forward_gated(image, False)
        for module in following:
            want = module(as_outputs(want))
        try:
            got, decisions = program.run(image)
        except Exception as error:
            return f'its program fails ({error_line(error)})'
        problem = output_difference(
            (tensors(want), records),
            (tensors(got), records_of(self.sites, decisions)),
            TOLERANCES[self.precision],
        )
        return problem and f'its program gives other results ({problem})'

    def _capture(
        self, seen: tuple, image: Tensor, following: tuple[nn.Module, ...]
    ) -> CapturedNetwork | str:
        """Capture the backbone and the modules after it in one pass."""
        for modules in (following or self.following, following):
            key = (*seen, modules)
            if key not in self._captured:
                while len(self._captured) >= MAX_PROGRAMS:
                    del self._captured[next(iter(self._captured))]
                self._captured[key] = self._try_capture(image, modules)
            if not isinstance(self._captured[key], str):
                break
        return self._captured[key]

    def _try_capture(
        self, image: Tensor, following: tuple[nn.Module, ...]
    ) -> CapturedNetwork | str:
        try:
            return CapturedNetwork(self._masked(), image, following)
        except CannotCapture as error:
            return str(error)
        except Exception as error:  # the network's code may raise anything
            return f'it cannot be captured ({error_line(error)})'

    def _masked(self) -> GatedBackbone:
        """A plain gated backbone with the same modules."""
        masked = GatedBackbone.__new__(GatedBackbone)
        masked.__dict__.update(self.__dict__)
        masked._programs, masked._captured, masked.following = {}, {}, ()
        masked._weights = []
        return masked

    def _make_program(
        self,
        captured: CapturedNetwork | str,
        whole: bool,
        gated: bool,
        dense: Mapping[str, str],
    ) -> ExecutableProgram | str:
        if isinstance(captured, str):
            return captured
        try:
            graph = captured.graph(whole, gated)
            listed = listed_graph(graph, self.sites, dense)
            if not self.kernel:
                return TorchProgram(listed)
            program = KernelProgram(listed, self.precision == BFLOAT16)
        except (CannotLower, FGCError) as error:
            return str(error)
        except Exception as error:
            return f'no program can be made from it ({error_line(error)})'
        program.set_single_threaded(self.single_threaded)
        return program

    def set_single_threaded(self, names: Collection[str]) -> None:
        """Set the steps of its programs that run on one thread."""
        self.single_threaded = set(names)
        for program in self._programs.values():
            if not isinstance(program, str):
                program.set_single_threaded(self.single_threaded)

    def set_precision(self, precision: str) -> None:
        """Set the precision of its programs, see :class:`DynamicPlan`."""
        if precision != self.precision:
            self.precision = precision
            self._programs.clear()

    def program_of(
        self, x: Tensor, following: Sequence[nn.Module] = ()
    ) -> ExecutableProgram | None:
        """The program for these images; ``None`` if the modules run."""
        if self.executor != PROGRAM or x.dim() != 4:
            return None
        count = x.shape[0]
        if count != 1 and (count == 0 or self.batch != LOOP):
            return None
        if x.dtype != torch.float32 or not x.is_cpu:
            return None
        program = self.program(x if count == 1 else x[:1], following)
        return None if isinstance(program, str) else program

    @contextmanager
    def as_modules(self) -> Iterator[None]:
        """Run the network's own modules, as for counting their MACs."""
        executor, self.executor = self.executor, MODULES
        try:
            yield
        finally:
            self.executor = executor

    def dynamic_report(self) -> dict[str, Any]:
        """As :meth:`DynamicImageClassifier.dynamic_report`."""
        if self.plan is None:
            return {'sites': {}, 'notes': ['there is no plan yet']}
        report = self.plan.report(self._seen_shapes)
        made = list(self._programs.items())
        sizes = {key[0] for key, found in made if not isinstance(found, str)}
        report['notes'] += [
            f'images of size {"x".join(map(str, size))} run masked, since '
            f'{problem}.'
            for size, problem in {key[0]: x for key, x in made}.items()
            if size not in sizes
        ]
        report['precision'] = self.computes_in
        if self.plan.backend == 'kernel':
            report['build'] = self.build
        return report

    def _clear_programs(self, *_: Any) -> None:
        """Drop graphs and programs made from the weights."""
        with BUILD_LOCK:  # or a program of the old weights is added after it
            self._captured.clear()
            self._programs.clear()
            self._last_call.clear()
            self._missing.clear()
            self._weights, self._weights_version = [], 0

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> DynamicBackbone:
        """As ``nn.Module._apply``, but dtype and device must not change."""
        self.check_conversion(fn)
        super()._apply(fn, recurse)
        self._clear_programs()
        return self

    def check_conversion(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Raise FGCError if a function changes dtype or device."""
        for old in list(self.parameters())[:1]:
            new = fn(old.detach().flatten()[:0])
            if (new.dtype, new.device) != (old.dtype, old.device):
                raise FGCError(
                    f'a dynamic model cannot be moved to {new.dtype} on '
                    f'{new.device}, since it was made for {old.dtype} on '
                    f'{old.device}; convert the model that it was made '
                    'from, and call to_dynamic again.'
                )

    __prepare_scriptable__ = refuse_scripting

    def train(self, mode: bool = True) -> DynamicBackbone:
        """Raise an error: a program cannot be trained."""
        _refuse_training(mode)
        return super().train(mode)


def _threshold(gate: nn.Module) -> Any:
    threshold = getattr(gate, 'threshold', None)
    if isinstance(threshold, Tensor):
        return id(threshold), threshold._version
    return threshold


class DynamicImageClassifier(GatedImageClassifier):
    """A gated classifier in evaluation that skips closed channels.

    Made by :func:`fgc_mm.deploy.to_dynamic`. Its predictions have MACs like
    those of the model that it was made from.

    Args:
        source: The model that it was made from, which counts the MACs.
        backbone: The dynamic backbone.
        neck: As in ``ImageClassifier``.
        head: As in ``ImageClassifier``.
        data_preprocessor: As in ``ImageClassifier``.
    """

    def __init__(
        self,
        source: GatedImageClassifier,
        backbone: DynamicBackbone,
        neck: Any,
        head: Any,
        data_preprocessor: Any,
    ) -> None:
        super().__init__(
            backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
        )
        self._source = [source]  # in a list: not registered as a submodule
        for module in self.modules():  # programs depend on all weights
            compiled = isinstance(module, torch.jit.ScriptModule)
            if module is not backbone and not compiled:
                module._register_load_state_dict_pre_hook(
                    backbone._clear_programs
                )
        self.eval().requires_grad_(False)
        backbone.following = self._following_modules()

    @property
    def plan(self) -> DynamicPlan | None:
        """How every site is executed."""
        return self.backbone.plan

    def _remove_unread_gates(self) -> None:
        """Do nothing: the source has left them out already."""

    def macs_table(self, image_shape: tuple[int, ...]) -> MACsTable:
        """The MACs table of the model that this one was made from."""
        return self._source[0].macs_table(image_shape)

    def _set_device(self, device: torch.device) -> None:
        """As in mmengine's model, before the parameters are moved."""
        self.backbone.check_conversion(lambda x: x.to(device))
        super()._set_device(device)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> DynamicImageClassifier:
        """As ``nn.Module._apply``; a refusal leaves all parts as they are."""
        self.backbone.check_conversion(fn)
        return super()._apply(fn, recurse)

    def loss(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """Raise an error: a program cannot be trained."""
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
            self.backbone._seen_shapes.add(tuple(inputs.shape[1:]))
            if mode == 'tensor':
                program = self.program(inputs)
        if program is None:
            return super().forward(inputs, data_samples, mode)
        return program.run(inputs, decisions=False)[0]

    def program(self, images: Tensor) -> ExecutableProgram | None:
        """The program from images to logits, if there is one."""
        modules = self._following_modules()
        return self.backbone.program_of(images, modules) if modules else None

    def _following_modules(self) -> tuple[nn.Module, ...]:
        """The neck, if there is one, and the head; empty without a head."""
        # for every call: Module.__getattr__ is slow
        neck, head = map(self._modules.get, ('neck', 'head'))
        if head is None:
            return ()
        return (head,) if neck is None else (neck, head)

    __prepare_scriptable__ = refuse_scripting

    def train(self, mode: bool = True) -> DynamicImageClassifier:
        """Raise an error: a program cannot be trained."""
        _refuse_training(mode)
        return super().train(mode)

    def dynamic_report(self) -> dict[str, Any]:
        """How every site is executed, and why.

        Returns:
            ``sites``: for every site ``executed`` (``'dynamic'`` or
            ``'dense'``), ``why``, ``dynamic_ms``, ``dense_ms``,
            ``plain_ms``, ``keep_ratio``; ``backend``, ``threads``,
            ``image_shape``, ``batch``, ``batch_ms``, ``executor`` and
            ``executor_why`` of the calibration, see :class:`DynamicPlan`;
            ``precision``, the one in use; ``build`` of the kernel, if it is
            used; ``notes``, differences from the calibration.
        """
        return self.backbone.dynamic_report()


Dynamic = DynamicImageClassifier | DynamicBackbone


def _refuse_training(mode: bool) -> None:
    if mode:
        raise FGCError(
            'a dynamic model runs in evaluation only, since its norms are '
            'folded; train the model that it was made from.'
        )
