"""Tests a checkpoint: fgc-mm test CONFIG CHECKPOINT [options]."""

import argparse
from copy import deepcopy
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from fgc_mm.cli.command_runner import TestRunner
from fgc_mm.cli.given_config import (
    apply_options,
    check_gated,
    check_gates,
    check_test,
    choose_work_dir,
    drop_distillation,
)
from fgc_mm.cli.launch import join_processes
from fgc_mm.deploy import images_of, to_dynamic
from fgc_mm.deploy.dynamic.dynamic_plan import LOOP
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.dataloader_defaults import (
    set_dataloader_defaults,
    switch_off,
    unpin_device_images,
)
from fgc_mm.errors import FGCError
from fgc_mm.evaluation.threshold_sweep import sweep_thresholds
from fgc_mm.reliability.atomic_file import check_writable, write_atomically
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.whole_checkpoint import WholeCheckpointHook
from fgc_mm.sites.copying import copy_network
from fgc_mm.type_name import type_name

SUFFIXES = {
    'pred': ('.pkl', '.pickle'),
    'metrics': ('.json', '.yaml', '.yml', '.pkl', '.pickle'),
}


class DumpPredictions(DumpResults):
    """Writes the predictions atomically."""

    def compute_metrics(self, results: list) -> dict:
        """Writes the predictions of all processes, in the main process."""
        write_results(results, Path(self.out_file_path))
        return {}


def main(args: argparse.Namespace) -> None:
    """Reads the arguments and the config, and tests."""
    check_out(args)
    cfg = load_config(args.config)
    apply_arguments(cfg, args)
    drop_distillation(cfg)
    if '://' not in args.checkpoint:
        read_checkpoint(args.checkpoint)
    join_processes(cfg, args.launcher)
    own = 'runner_type' in cfg
    build = RUNNERS.build if own else TestRunner.from_cfg
    runner = build(cfg)
    runner.register_hook(WholeCheckpointHook())
    test(runner, args)


def test(runner: Runner, args: argparse.Namespace) -> None:
    """Runs the test and writes the file of --out."""
    if args.out and args.out_item == 'pred':
        runner.test_evaluator.metrics.append(DumpPredictions(args.out))
    if args.dynamic:  # after hooks that change the weights
        runner.register_hook(DynamicModelHook(args.dynamic), 'LOWEST')
    metrics = runner.test()
    if args.out and args.out_item == 'metrics' and is_main_process():
        write_results(metrics, Path(args.out))
    if args.threshold_sweep:
        rows = sweep_thresholds(runner)
        if is_main_process():
            write_results(rows, args.threshold_sweep)


class DynamicModelHook(Hook):
    """Replaces the model by one that computes open channels only.

    Every image runs on the CPU with its own channels, whatever the batch.

    Args:
        precision: ``'float32'`` or ``'bfloat16'``.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def before_test_epoch(self, runner: Runner) -> None:
        """Make the model from the weights that are tested."""
        model = runner.model
        if next(model.parameters()).device.type != 'cpu':
            model = copy_network(model).cpu()
        images = torch.cat(list(images_of(runner.cfg, model, 8)))
        dynamic = to_dynamic(model, images, precision=self.precision)
        dynamic.backbone.batch = LOOP
        report = dynamic.dynamic_report()
        why = report['executor_why'] and f' ({report["executor_why"]})'
        runner.logger.info(
            f'dynamic execution: {report["executor"]} in '
            f'{report["precision"]}{why}'
        )
        runner.model = dynamic


def check_out(args: argparse.Namespace) -> None:
    """Checks the arguments for output files."""
    check_sweep(args)
    check_dynamic(args)
    if args.out is None:
        if args.out_item is not None:
            raise FGCError(
                f'--out-item {args.out_item} has no output file: it sets '
                'what is written to --out; add --out FILE.'
            )
        return
    args.out_item = args.out_item or 'pred'
    suffixes = SUFFIXES[args.out_item]
    if Path(args.out).suffix not in suffixes:
        raise FGCError(
            f'--out {args.out} has an unknown format: {args.out_item} are '
            f'written as {", ".join(suffixes)}; rename the file.'
        )
    check_writable(args.out)


def check_sweep(args: argparse.Namespace) -> None:
    """Checks that a sweep is possible with the other arguments."""
    file = args.threshold_sweep
    if file is None:
        return
    if file.suffix != '.json':
        raise FGCError(
            f'--threshold-sweep {file} has an unknown format: a sweep is '
            'written as .json; rename the file.'
        )
    check_writable(file)
    if args.tta or (args.out is not None and args.out_item != 'metrics'):
        other = '--tta' if args.tta else '--out-item pred'
        raise FGCError(
            f'--threshold-sweep cannot be combined with {other}: a sweep '
            f'tests several times and keeps only metrics; leave {other} out.'
        )


def check_dynamic(args: argparse.Namespace) -> None:
    """Checks that --dynamic is possible with the other arguments."""
    if not args.dynamic:
        return
    others = {
        '--tta': (args.tta, 'it runs each image once'),
        '--amp': (args.amp, 'its own value is the precision'),
        '--threshold-sweep': (
            args.threshold_sweep,
            'each threshold would need a program of its own',
        ),
        '--launcher': (args.launcher != 'none', 'it runs in one process'),
    }
    for other, (given, why) in others.items():
        if given:
            raise FGCError(
                f'--dynamic cannot be combined with {other}: {why}; leave '
                f'{other} out.'
            )


def write_results(content: object, file: Path) -> None:
    """Writes a file atomically, in the format of its suffix."""
    dumped = mmengine.dump(content, file_format=file.suffix[1:])
    if isinstance(dumped, str):
        dumped = dumped.encode()
    write_atomically(dumped, file)


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Writes the arguments and --cfg-options into the config."""
    check_test(cfg)
    cfg.launcher = args.launcher
    choose_work_dir(cfg, args)
    if args.amp:
        cfg.test_cfg.fp16 = True
    apply_gate_arguments(cfg, args)
    if args.show or args.show_dir is not None:
        show_results(cfg, args)
    if args.tta:
        augment(cfg)
    set_dataloader_defaults(cfg, ['test_dataloader'])
    if args.no_pin_memory:
        switch_off(cfg, ['test_dataloader'], 'pin_memory')
    apply_options(cfg, args)
    unpin_device_images(cfg, ['test_dataloader'])
    # whatever the training started from
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.tta:
        check_augmentation(cfg)


def apply_gate_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Sets the threshold; checks that the model has the gates for options."""
    if args.gate_threshold is not None:
        check_gates(cfg, f'--gate-threshold {args.gate_threshold}')
        cfg.model.backbone.gate.threshold = args.gate_threshold
    if args.threshold_sweep is not None:
        check_gates(cfg, f'--threshold-sweep {args.threshold_sweep}')
    if args.dynamic:
        check_gated(cfg, f'--dynamic {args.dynamic}')


def show_results(cfg: Config, args: argparse.Namespace) -> None:
    """Switches mmpretrain's visualization hook on."""
    if 'visualization' not in (cfg.get('default_hooks') or {}):
        raise FGCError(
            '--show and --show-dir find no default_hooks.visualization in '
            'the config: that hook draws the results; add '
            'visualization=dict(type="VisualizationHook").'
        )
    if args.interval < 1:
        raise FGCError(
            f'--interval {args.interval} shows no image; give a whole number '
            'of at least 1.'
        )
    cfg.default_hooks.visualization.update(
        enable=True,
        show=args.show,
        wait_time=args.wait_time,
        out_dir=args.show_dir,
        interval=args.interval,
    )


def augment(cfg: Config) -> None:
    """Wraps the model and the pipeline for test-time augmentation."""
    dataset = cfg.test_dataloader.dataset
    model = cfg.get('tta_model') or dict(type='mmpretrain.AverageClsScoreTTA')
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = _mirrored(dataset)
    cfg.model = ConfigDict(**model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def _mirrored(dataset: ConfigDict) -> list:
    """The test pipeline with its last step for the image and its mirror."""
    if not dataset.get('pipeline'):
        raise FGCError(
            '--tta finds no pipeline in the test dataset '
            f'({type_name(dataset)}): the pipeline is what is augmented; add '
            'a tta_pipeline to the config.'
        )
    *steps, pack = deepcopy(dataset.pipeline)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def check_augmentation(cfg: Config) -> None:
    """Checks that no MACs are counted with test-time augmentation."""
    if 'DynamicMACs' in _type_names(cfg.test_evaluator):
        raise FGCError(
            '--tta cannot be combined with DynamicMACs: augmentation keeps '
            "only the MACs of an image's first view; test without --tta, or "
            'with a config that inherits from this one and sets '
            "test_evaluator = [dict(type='Accuracy')]."
        )


def _type_names(node: object) -> list[str]:
    """Every `type` in a nested config, as text."""
    if isinstance(node, (list, tuple)):
        return [name for item in node for name in _type_names(item)]
    if not isinstance(node, dict):
        return []
    below = _type_names([v for k, v in node.items() if k != 'type'])
    return [type_name(node), *below]
