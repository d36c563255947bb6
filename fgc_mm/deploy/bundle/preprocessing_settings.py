"""Converts a config's test pipeline and data preprocessor to settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor
from mmpretrain.registry import TRANSFORMS
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models import NonBlockingDataPreprocessor
from fgc_mm.runtime.preprocessing import new_size, size_after
from fgc_mm.runtime.resizing import INTERPOLATIONS
from fgc_mm.type_name import type_name

# data sets whose items contain the decoded image, and its channel order
IN_MEMORY = {
    'CIFAR10': 'rgb',
    'CIFAR100': 'rgb',
    'Digits': 'rgb',
    'FashionMNIST': 'grey',
    'MNIST': 'grey',
}
LOADERS = ('LoadImage', 'LoadImageFromFile')
LIBRARIES = ('fgc_mm', 'mmcv', 'mmpretrain')


def preprocessing_settings(
    cfg: Config, model: nn.Module, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """``preprocessing`` of the file's metadata, see docs/runtime.md.

    Args:
        cfg: The config.
        model: Its model, for the data preprocessor.
        size: Input height and width of the network; ``None``: the output
            size of the pipeline, if it is the same for all images.

    Raises:
        FGCError: The runtime does not support a step of the pipeline, or the
            data preprocessor; the message names it.
    """
    dataset = innermost_dataset(cfg)
    steps = [
        TRANSFORMS.build(step) if isinstance(step, Mapping) else step
        for step in dataset['pipeline']
    ]
    bits, order, steps = _image_format(dataset, steps)
    described = [_step(step) for step in _without_packing(steps)]
    size = size or _size_after(described)
    return dict(
        steps=described,
        bits=bits,
        size=list(size),
        **_normalisation(model.data_preprocessor, order, size),
    )


def _size_after(steps: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Height and width after the steps, of images of any size."""
    sizes = {size_after(steps, size) for size in ((700, 900), (900, 700))}
    if len(sizes) > 1:
        raise FGCError(
            'the test pipeline makes images of several sizes, but a file '
            'supports one; add a Resize or CenterCrop with a fixed size.'
        )
    return sizes.pop()


def innermost_dataset(cfg: Config) -> Mapping[str, Any]:
    """The config of the data set that has the pipeline."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and isinstance(
        dataset.get('dataset'), Mapping
    ):
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise FGCError(
            f'the test set of {cfg.filename} '
            f'({dataset.get("type", "missing")}) has no pipeline, which '
            'defines the preprocessing of images; give a config that has one.'
        )
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return dataset


def _name(step: Any) -> str:
    """The class name; with its module if it is not from these libraries."""
    kind = type(step)
    own = kind.__module__.partition('.')[0] in LIBRARIES
    return kind.__name__ if own else f'{kind.__module__}.{kind.__name__}'


def _image_format(
    dataset: Mapping[str, Any], steps: list[Any]
) -> tuple[int | None, str, list[Any]]:
    """Bits of a 16-bit image, channel order, and the remaining steps."""
    if steps and _name(steps[0]) in LOADERS:
        return *_loader_format(steps[0]), steps[1:]
    name = type_name(dataset)
    if name not in IN_MEMORY:
        raise FGCError(
            f'the pipeline of {name} begins with '
            f'{_name(steps[0]) if steps else "nothing"}, so it is unknown '
            f'how its images are read; begin it with one of '
            f'{", ".join(LOADERS)}.'
        )
    return 16, IN_MEMORY[name], steps


def _loader_format(step: Any) -> tuple[int | None, str]:
    own = _name(step) == 'LoadImage'
    order = _channel_order(step)
    if order is None or step.imdecode_backend not in ('cv2', 'pillow'):
        raise _unsupported(step, 'reads images of 8 bits, colour or grey')
    if order == 'grey' and step.imdecode_backend == 'pillow':
        raise _unsupported(step, 'decodes grey images as OpenCV does')
    if step.as_float if own else step.to_float32:
        raise _unsupported(step, 'resizes images of 8 bits')
    return step.bits if own else 16, order


def _channel_order(step: Any) -> str | None:
    """Of the images that a step reads; LoadImage stores OpenCV's flag."""
    import cv2

    orders = {
        'color': 'bgr',
        cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH: 'bgr',
        'grayscale': 'grey',
        cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH: 'grey',
    }
    return orders.get(step.color_type)


def _without_packing(steps: list[Any]) -> list[Any]:
    last = steps[-1] if steps else None
    if last is None or _name(last) != 'PackInputs':
        raise FGCError(
            'the test pipeline ends with '
            f'{_name(last) if last else "nothing"}, but the runtime packs '
            'images as PackInputs does; end it with '
            "dict(type='PackInputs')."
        )
    if last.input_key != 'img':
        raise _unsupported(last, "packs the image, input_key='img'")
    return steps[:-1]


def _step(step: Any) -> dict[str, Any]:
    make = STEPS.get(_name(step))
    if make is None:
        raise FGCError(
            f'the test pipeline has the step {_name(step)}, but the runtime '
            f'supports {", ".join((*LOADERS, *STEPS, "PackInputs"))}; export '
            'with a test pipeline of these.'
        )
    return make(step)


def _resize_all(step: Any) -> dict[str, Any]:
    if step.scale is None:
        raise _unsupported(step, 'resizes to a fixed scale=(width, height)')
    width, height = step.scale
    edge = 'within' if step.keep_ratio else 'both'
    return _resize(step, edge, [height, width])


def _resize(step: Any, edge: str, size: int | list[int]) -> dict[str, Any]:
    options = dict(
        edge=edge,
        size=size,
        interpolation=step.interpolation,
        backend=step.backend,
    )
    if step.interpolation not in INTERPOLATIONS.get(step.backend, ()):
        raise _unsupported(step, 'resizes by cv2 or pillow')
    new_size((8, 8), options)  # raises if the options are invalid
    return dict(resize=options)


def _crop(step: Any) -> dict[str, Any]:
    if step.auto_pad:
        raise _unsupported(step, 'crops without padding')
    width, height = step.crop_size
    return dict(crop=[height, width])


STEPS = {
    'Resize': _resize_all,
    'ResizeEdge': lambda step: _resize(step, step.edge, step.scale),
    'CenterCrop': _crop,
}


def _normalisation(
    preprocessor: Any, order: str, size: tuple[int, int]
) -> dict[str, Any]:
    known = ClsDataPreprocessor, NonBlockingDataPreprocessor
    if type(preprocessor) not in known:
        raise FGCError(
            f'the data preprocessor is {type(preprocessor).__name__}, but '
            'the runtime implements ClsDataPreprocessor; export with that.'
        )
    divisor = preprocessor.pad_size_divisor
    if any(pixels % divisor for pixels in size):
        raise FGCError(
            f'the data preprocessor pads images of {size[1]} x {size[0]} to '
            f'multiples of {divisor}, but the runtime does not pad; export '
            'with pad_size_divisor=1 or another size.'
        )
    if preprocessor.to_rgb and order != 'grey':
        order = {'rgb': 'bgr', 'bgr': 'rgb'}[order]
    mean = std = None
    if preprocessor._enable_normalize:
        mean = _shortest_floats(preprocessor.mean)
        std = _shortest_floats(preprocessor.std)
    return dict(channel_order=order, mean=mean, std=std)


def _shortest_floats(tensor: Tensor) -> list[float]:
    """The shortest decimals that give these float32 values."""
    return [float(str(x)) for x in tensor.float().flatten().numpy()]


def _unsupported(step: Any, rule: str) -> FGCError:
    return FGCError(
        f'the test pipeline has the step {step}, but the runtime {rule}; '
        'export with a test pipeline that does so.'
    )
