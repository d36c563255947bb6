"""The config and the model that the arguments of a command name."""

import argparse
import inspect
from pathlib import Path

from mmengine.config import Config
from mmpretrain.models.classifiers import ImageClassifier

from fgc_mm.deploy.loading import build_trained
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import override, read_options
from fgc_mm.errors import FGCError
from fgc_mm.registry import MODELS, class_of


def read_config(args: argparse.Namespace) -> Config:
    """The config of CONFIG and ``--cfg-options``."""
    cfg = load_config(args.config)
    apply_options(cfg, args)
    return cfg


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Merges ``--cfg-options`` into the config."""
    override(cfg, read_options(args.cfg_options))


def trained_model(args: argparse.Namespace) -> tuple[Config, ImageClassifier]:
    """The config, and its gated model with the weights of CHECKPOINT."""
    cfg = read_config(args)
    return cfg, build_trained(cfg, args.checkpoint)


def choose_work_dir(cfg: Config, args: argparse.Namespace) -> None:
    """Sets --work-dir, the config's, or ./work_dirs/NAME_OF_CONFIG."""
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))


def check_test(cfg: Config) -> None:
    """Checks that the config has the parts of a test."""
    for field in ('test_dataloader', 'test_cfg', 'test_evaluator', 'model'):
        if cfg.get(field) is None:
            raise FGCError(
                f'{cfg.filename} has no {field}: a test needs a model, '
                'test_dataloader, test_cfg and test_evaluator; add it.'
            )


def drop_distillation(cfg: Config) -> None:
    """Removes the teacher, which only training needs."""
    cfg.model.pop('distillation', None)
    if isinstance(cfg.model.get('module'), dict):  # in test-time augmentation
        cfg.model.module.pop('distillation', None)


def check_gated(cfg: Config, option: str) -> None:
    """Checks that the model has gates."""
    if 'gate' not in (cfg.model.get('backbone') or {}):
        raise FGCError(
            f'{option} finds no gate in {cfg.filename}; give a config of a '
            'gated model.'
        )


def check_gates(cfg: Config, option: str) -> None:
    """Checks that the gates of the model have a threshold."""
    check_gated(cfg, option)
    kind = class_of(cfg.model.backbone.gate, MODELS)
    if kind and 'threshold' not in inspect.signature(kind).parameters:
        raise FGCError(
            f'{option} does not fit {kind.__name__}, which has no '
            'threshold; its budget is set when it is trained.'
        )
