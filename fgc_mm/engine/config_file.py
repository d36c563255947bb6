"""Reading a config file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.model import PretrainedInit

from fgc_mm.config_files import config_file
from fgc_mm.engine.config_sections import check_sections
from fgc_mm.engine.image_size import config_image_size
from fgc_mm.errors import FGCError
from fgc_mm.sites.image_size import expect_images

PRETRAINED = (
    PretrainedInit,
    'mmengine.model.PretrainedInit',
    'mmengine.model.weight_init.PretrainedInit',
)


def load_config(path: str) -> Config:
    """Reads a config file, or a config of the package by its name.

    Args:
        path: As for :func:`fgc_mm.config_files.find_config`.

    Raises:
        FGCError: The file is missing, or cannot be read as a config.
        OSError: Another file that it needs is missing.
        ImportError: A package that it imports is missing.
    """
    file = Path(config_file(path))
    # custom_imports may name a package in the config's folder, which is
    # appended so that it cannot hide an installed package
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        cfg = Config.fromfile(file)
    except SyntaxError as error:
        raise FGCError(
            f'{path} cannot be read as a config ({error.msg}): a .py config '
            'is Python; correct the line.'
        ) from error
    except TypeError as error:  # e.g. a dict merged into a number
        raise FGCError(
            f'{path} does not fit its _base_ files: {error}'
        ) from error
    except (FGCError, OSError, ImportError):  # which the commands report
        raise
    except Exception as error:  # a config may run anything
        if re.search('load fgc_mm config|external package', str(error)):
            raise FGCError(
                f'{path} has a _base_ with "::", which mmengine looks up in '
                'packages of OpenMMLab only; for a config of fgc_mm write '
                "_base_ = [__import__('fgc_mm').config_file('NAME.py')]."
            ) from error
        reason = ' '.join(str(error).split())
        raise FGCError(
            f'{path} cannot be read as a config ({type(error).__name__}: '
            f'{reason}); correct it, or the file of its _base_ that has this '
            'fault.'
        ) from error
    check_sections(cfg)
    _name_pretrained(cfg)
    expect_images(config_image_size(cfg))
    return cfg


def _name_pretrained(node: Any) -> None:
    """Gives the class PretrainedInit its registered name, in place.

    A config in pure Python may name the class. In the text of a config,
    which mmengine writes, and in its dicts the class becomes a path; then
    mmengine initialises the other layers after loading the weights, which
    replaces them.
    """
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        # as stored: ConfigDict imports the objects that it returns
        kind = dict.get(node, 'type')
        if isinstance(kind, (LazyAttr, LazyObject)):
            kind = f'{kind.module}.{kind}'
        if kind in PRETRAINED:
            node['type'] = 'Pretrained'
        node = [*dict.values(node)]
    if isinstance(node, (list, tuple)):
        for child in node:
            _name_pretrained(child)
