"""A trained gated model as one file that runs without torch."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from fgc_mm.cli.given_config import trained_model
from fgc_mm.deploy import images_of
from fgc_mm.deploy.bundle.meta import file_meta
from fgc_mm.deploy.bundle.preprocessing_settings import preprocessing_settings
from fgc_mm.deploy.bundle.writing import WrittenFile, write_file
from fgc_mm.deploy.graph import program_of
from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import check_writable
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.runtime.picture import read_picture
from fgc_mm.runtime.preprocessing import preprocess

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.ppm', '.tif', '.tiff')


def main(args: argparse.Namespace) -> None:
    """Capture, write, compare."""
    check_writable(args.out)
    cfg, model = trained_model(args)
    images = some_images(cfg, model, args)
    program = program_of(model, images[:1])
    state = read_checkpoint(args.checkpoint)
    program.bfloat16 = args.precision == 'bfloat16'
    program.meta = file_meta(cfg, state, model, program)
    written = write_file(program, model, images, args.out)
    print(f'{args.out}: {summary(written)}')


def some_images(
    cfg: Config, model: nn.Module, args: argparse.Namespace
) -> Tensor:
    """Preprocessed images to compare on; (N, C, H, W)."""
    if args.images is None:
        return torch.cat(list(images_of(cfg, model, args.count)))
    files = pictures(args.images, args.count)
    settings = preprocessing_settings(cfg, model)
    grey, bits = settings['channel_order'] == 'grey', settings['bits']
    return torch.stack([
        torch.from_numpy(preprocess(read_picture(path, grey, bits), settings))
        for path in files
    ])  # fmt: skip


def pictures(folder: Path, count: int) -> list[Path]:
    """The first picture files of a folder and the folders in it."""
    found = sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in ENDINGS and not path.name.startswith('.')
    )
    if not found or count < 1:
        raise FGCError(
            f'--images {folder} --count {count} gives no picture, but the '
            'file is compared with the masked model on pictures; give a '
            f'folder of pictures ({", ".join(ENDINGS)}).'
        )
    return found[:count]


def summary(written: WrittenFile) -> str:
    """Description of the written file."""
    percent = 100 * written.macs / written.dense
    compared = written.images - written.edge
    left_out = (
        f' ({written.edge} more have a mask that depends on rounding)'
        if written.edge
        else ''
    )
    return (
        f'{written.size / 1e6:.1f} MB, logits of {compared} images differ by '
        f'{written.gap:.1e} at most from the masked model{left_out}; '
        f'{written.macs / 1e6:,.2f} million MACs per image on average '
        f'({percent:.1f} % of the dense network); run by the build '
        f'{written.build} in {written.precision}'
    )
