"""Variants of a network that a benchmark compares: dense, masked, ..."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor, nn

from fgc_mm.deploy.compaction.channel_removal import ChannelRemoval
from fgc_mm.deploy.compaction.compact import compact
from fgc_mm.deploy.comparing import TOLERANCES, largest_gap
from fgc_mm.deploy.dynamic.build import to_dynamic
from fgc_mm.deploy.export.onnx import (
    export_gathered_onnx,
    export_onnx,
    onnx_logits,
)
from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.deploy.firing import SiteFiring, firing_statistics, gated_backbone
from fgc_mm.deploy.graph.capture import remove_hooks
from fgc_mm.deploy.timing.runtime_forward import runtime_forward
from fgc_mm.models import ChannelMap, CompactBackbone
from fgc_mm.runtime.errors import error_line
from fgc_mm.runtime.library import has_bfloat16
from fgc_mm.sites.copying import copy_network

Forward = Callable[[Tensor], Tensor]
# a variant with a larger difference of logits is left out
MAX_DIFFERENCE = 1e-3
RUNTIME = 'fgc_mm runtime'


@dataclass
class BenchmarkVariant:
    """One row of the benchmark.

    Attributes:
        name: Name of the row.
        kind: ``'dense'``, ``'bfloat16'`` (dense in bfloat16), ``'masked'``,
            ``'compact'``, ``'dynamic'``, ``'both'`` (compact and dynamic),
            or ``'static'`` (the dense network of the same mean width, a
            lower bound of the time).
        run: Images in, logits out; ``None`` if it cannot be built.
        why_not: The reason, if it cannot be built.
        model: The network that runs, if its MACs or report are needed.
    """

    name: str
    kind: str
    run: Forward | None = None
    why_not: str = ''
    model: Any = field(default=None, repr=False)


class BenchmarkVariants:
    """Builds the rows of a benchmark from one trained gated model.

    Args:
        model: The gated classifier, in evaluation.
        settings: Config of its backbone.
        images: (N, 3, H, W) real images for timing.
        calibration: (N, 3, H, W) other images, for the calibration of the
            dynamic networks and the firing statistics of compaction; on the
            timed images, rarely open channels might never be open. ``None``
            leaves compaction out, and the timed images are used.
        folder: For ONNX files.
        compiled: Whether to include ``torch.compile``; it takes a minute.
    """

    def __init__(
        self,
        model: ImageClassifier,
        settings: Mapping[str, Any],
        images: Tensor,
        calibration: Tensor | None,
        folder: Path,
        compiled: bool = True,
    ) -> None:
        self._model = model
        self._backbone = gated_backbone(model)
        self._settings = settings
        self._images = images
        self._calibration = calibration
        self._others = images if calibration is None else calibration
        self._folder = folder
        self._compiled = compiled
        # code compiled earlier for other numbers of threads would reset ours
        torch._dynamo.reset()
        self._firing = firing_statistics(model, images.split(16))

    def all(self) -> Iterator[BenchmarkVariant]:
        """Every variant; those that cannot be built have a reason."""
        yield from self._dense()
        yield from self._gated()
        yield from self._compact()
        yield from self._static()

    def _dense(self) -> Iterator[BenchmarkVariant]:
        dense = ungated_copy(self._model)
        yield from self._execution_forms('dense', dense)
        if not has_bfloat16():
            return
        forms: dict[str, Callable[[], Forward]] = {
            'folded, channels last': lambda: _channels_last(
                folded(dense), torch.bfloat16
            ),
            RUNTIME: lambda: runtime_forward(dense, self._images[:1], True),
        }
        if self._compiled:
            forms['compiled, channels last'] = lambda: _compile(
                dense, self._images[:1], torch.bfloat16, torch.channels_last
            )
        for form, build in forms.items():
            yield self._row(
                f'dense, {form}, bfloat16', 'bfloat16', build,
                PlainForward(dense), tolerance=TOLERANCES['bfloat16'],
            )  # fmt: skip

    def _static(self) -> Iterator[BenchmarkVariant]:
        try:
            mapped = same_width(self._model, self._firing)
            static = ungated_copy(self._model, mapped)
            with torch.no_grad():
                PlainForward(static)(self._images[:1])
        except Exception as error:  # the code may need a removed channel
            why = error_line(error)
            yield BenchmarkVariant('static, eager', 'static', why_not=why)
            return
        yield from self._execution_forms('static', static)

    def _execution_forms(
        self, kind: str, model: ImageClassifier
    ) -> Iterator[BenchmarkVariant]:
        """The same network in all forms of execution."""
        eager = PlainForward(model)
        yield BenchmarkVariant(f'{kind}, eager', kind, eager, model=model)

        def row(form: str, build: Callable[[], Forward]) -> BenchmarkVariant:
            return self._row(f'{kind}, {form}', kind, build, eager)

        yield row('folded', lambda: PlainForward(folded(model)))
        yield row(
            'folded, channels last', lambda: _channels_last(folded(model))
        )
        if self._compiled:
            yield row('compiled', lambda: _compile(model, self._images[:1]))
        yield row(RUNTIME, lambda: runtime_forward(model, self._images[:1]))
        yield row('ONNX Runtime', lambda: self._onnx(kind, model))

    def _gated(self) -> Iterator[BenchmarkVariant]:
        masked = PlainForward(self._model)
        yield BenchmarkVariant('masked, eager', 'masked', masked)
        yield self._row(
            'masked, ONNX Runtime', 'masked',
            lambda: self._onnx('masked', self._model), masked,
        )  # fmt: skip
        yield self._row(
            'gathered, ONNX Runtime', 'dynamic', self._gathered, masked
        )
        yield self._dynamic('dynamic', 'dynamic', self._model)
        if has_bfloat16():
            yield self._dynamic(
                'dynamic, bfloat16', 'dynamic', self._model, 'bfloat16'
            )

    def _compact(self) -> Iterator[BenchmarkVariant]:
        try:
            small, why = self._compacted()
        except Exception as error:  # depends on the backbone's code
            small, why = None, error_line(error)
        if small is None:
            yield BenchmarkVariant('compact, eager', 'compact', why_not=why)
            yield BenchmarkVariant('compact and dynamic', 'both', why_not=why)
            return
        yield BenchmarkVariant(
            'compact, eager', 'compact', PlainForward(small), model=small
        )
        yield self._dynamic('compact and dynamic', 'both', small)

    def _dynamic(
        self,
        name: str,
        kind: str,
        model: ImageClassifier,
        precision: str = 'float32',
    ) -> BenchmarkVariant:
        try:
            dynamic = to_dynamic(model, self._others[:8], precision=precision)
        except Exception as error:  # a compiler may raise anything
            return BenchmarkVariant(name, kind, why_not=error_line(error))
        return BenchmarkVariant(name, kind, dynamic, model=dynamic)

    def _compacted(self) -> tuple[ImageClassifier | None, str]:
        """The model without channels that are constant on these images."""
        if isinstance(self._backbone, CompactBackbone):
            return None, 'the model is compact already'
        if self._calibration is None:
            return None, 'the config has no training images for statistics'
        firing = firing_statistics(self._model, self._calibration.split(16))
        done = compact(self._model, firing, self._settings, self._images[:8])
        if not done.channel_map.layers and all(
            len(site.gated) == len(site.kept)
            for site in done.channel_map.sites.values()
        ):
            return None, 'no channel is always, or never, open'
        if not hasattr(done.backbone, 'gates'):
            return None, 'no gate is left: the model is static'
        small = copy.copy(self._model)
        small._modules = dict(self._model._modules, backbone=done.backbone)
        small._tables = {}
        return small, ''

    def _gathered(self) -> Forward:
        file = self._folder / 'gathered.onnx'
        export_gathered_onnx(self._model, self._images, file)
        return onnx_logits(file)

    def _onnx(self, name: str, model: nn.Module) -> Forward:
        file = self._folder / f'{name}.onnx'
        two = self._images[:1].repeat(2, 1, 1, 1)
        export_onnx(model, two, file)
        return onnx_logits(file)

    def _row(
        self,
        name: str,
        kind: str,
        build: Callable[[], Forward],
        reference: Forward,
        tolerance: float = MAX_DIFFERENCE,
    ) -> BenchmarkVariant:
        """A variant that agrees with its reference, or why there is none."""
        image = self._images[:1]
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter('ignore')
                run = build()
                gap = largest_gap(reference(image), run(image))
        except Exception as error:  # compilers and runtimes raise anything
            return BenchmarkVariant(name, kind, why_not=error_line(error))
        if not gap <= tolerance:
            why = f'logits differ by {gap:.0e}'
            return BenchmarkVariant(name, kind, why_not=why)
        return BenchmarkVariant(name, kind, run)


def ungated_copy(
    model: ImageClassifier, channel_map: ChannelMap | None = None
) -> ImageClassifier:
    """A copy of the classifier without gates, all channels open.

    Args:
        model: The gated classifier.
        channel_map: If given, the copy is shrunk to it.
    """
    plain = gated_backbone(model).backbone
    neck = model.neck if model.with_neck else None
    ungated = copy_network(ImageClassifier(plain, neck, model.head))
    remove_hooks(ungated.backbone)
    if channel_map is not None:
        channel_map.shrink(ungated.backbone)
    return ungated.eval().requires_grad_(False)


def same_width(
    model: ImageClassifier, firing: Sequence[SiteFiring]
) -> ChannelMap:
    """The most used channels of every site, as many as are open on average."""
    fixed = []
    for stats in firing:
        count = max(1, round(float(stats.rate.sum())))
        chosen = torch.zeros_like(stats.rate)
        chosen[stats.rate.topk(count).indices] = 1
        fixed.append(SiteFiring(stats.site, chosen, chosen, stats.images))
    return ChannelRemoval(gated_backbone(model), fixed, 0.0).channel_map()


def folded(model: nn.Module) -> nn.Module:
    """A copy with norms folded into the convs."""
    from mmcv.cnn import fuse_conv_bn

    return fuse_conv_bn(copy.deepcopy(model))


def _channels_last(model: Any, dtype: torch.dtype = torch.float32) -> Forward:
    """The network in eager torch; its logits are float32."""
    last = torch.channels_last
    plain = PlainForward(model.to(dtype=dtype, memory_format=last))
    return lambda x: plain(x.to(dtype, memory_format=last)).float()


def _compile(
    model: ImageClassifier,
    image: Tensor,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Forward:
    """Inductor with frozen weights, for one shape at a time."""
    moved = copy.deepcopy(model).to(dtype=dtype, memory_format=memory_format)
    compiled = torch.compile(
        PlainForward(moved),
        dynamic=False,
        options={'freezing': True},
    )

    def run(x: Tensor) -> Tensor:
        return compiled(x.to(dtype, memory_format=memory_format)).float()

    run(image)
    return run
