"""Every rate of the benchmark is one, on a few small images."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fgc_mm.registry import MODELS

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'


@pytest.fixture(scope='module')
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import images_per_second
    finally:
        sys.path.remove(str(BENCHMARKS))
    return images_per_second


def test_the_files_are_read_in_both_ways(benchmark):
    with benchmark.image_folder(8) as folder:
        assert len([*folder.glob('train/*/*.jpg')]) == 8
        rates = [
            benchmark.reading_rate(config, folder, repeats=1)
            for config in benchmark.READERS.values()
        ]
    assert not folder.exists()
    assert all(rate.wall > 0 and rate.cpu > 0 for rate in rates)


def test_a_step_is_that_of_its_name(benchmark, monkeypatch):
    """Seen from the first convolution of the network."""
    seen = []

    def step(model, data, _):
        conv = next(
            m for m in model.modules() if isinstance(m, torch.nn.Conv2d)
        )
        conv.register_forward_hook(
            lambda module, _, out: seen.append((module.weight, out.dtype))
        )
        with _.optim_context(model):
            model(**model.data_preprocessor(data, True), mode='loss')

    kind = MODELS.get('GatedImageClassifier')
    monkeypatch.setattr(kind, 'train_step', step)
    for options in benchmark.STEPS.values():
        config = 'bas_resnet20_folder16_55'
        found = benchmark.training_rates(config, 4, 1, {'step': options})
        assert found['step'].cpu > 0
        weight, dtype = seen[-1]
        last = weight.is_contiguous(memory_format=torch.channels_last)
        assert last == options['channels_last']
        assert (dtype == torch.bfloat16) == options['bfloat16']


def test_a_batch_has_the_size_of_its_config(benchmark):
    sizes = {
        'bas_resnet20_folder16_55': 16, 'bas_resnet20_folder32_55': 32,
        'bas_resnet20_cifar10': 32,
    }  # fmt: skip
    for config, size in sizes.items():
        batch = benchmark.random_batch(benchmark.read_config(config), 2)
        assert batch['inputs'].shape == (2, 3, size, size)


def test_processes_side_by_side_are_summed(benchmark, monkeypatch, capsys):
    """What one process prints is what another one reads."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    argv = ['x', '--only-steps', 'dense_resnet20_folder16']
    argv += ['--images', '4', '--repeats', '1']
    monkeypatch.setattr(sys, 'argv', argv)
    benchmark.main()
    said = capsys.readouterr().out
    wall, cpu = map(float, said.split()[-2:])

    class Done:
        def __init__(self, *_, **__):
            pass

        def communicate(self):
            return f'a word of a library\n{said}', ''

    monkeypatch.setattr(benchmark.subprocess, 'Popen', Done)
    args = SimpleNamespace(processes=2, config='x', images=4, repeats=1)
    together = benchmark.side_by_side(args, threads=1)
    assert together.wall == pytest.approx(2 * wall)
    assert together.cpu == pytest.approx(cpu)
