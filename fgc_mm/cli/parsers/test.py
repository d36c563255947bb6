"""Tests a checkpoint: fgc-mm test CONFIG CHECKPOINT [options]."""

from argparse import ArgumentParser
from pathlib import Path

from fgc_mm.cli.arguments import PRECISIONS, add_shared_arguments


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='folder for the logs')
    parser.add_argument('--out', help='file for the results')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='content of --out (default: pred, the predictions, as .pkl)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_model and "
        'tta_pipeline, or the mean over each image and its mirror image',
    )
    parser.add_argument(
        '--gate-threshold',
        type=float,
        help='probability above which a channel is open (trained: 0.5)',
    )
    parser.add_argument(
        '--threshold-sweep',
        type=Path,
        metavar='JSON',
        help='test at other thresholds as well, for accuracy over MACs',
    )
    parser.add_argument(
        '--dynamic',
        nargs='?',
        const=PRECISIONS[0],
        choices=PRECISIONS,
        help='test the model of to_dynamic, which computes open channels '
        f'only, on the CPU (default precision: {PRECISIONS[0]})',
    )
    _add_show_arguments(parser)
    add_shared_arguments(parser)


def _add_show_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('--show-dir', help='folder for images with results')
    parser.add_argument(
        '--show', action='store_true', help='show the results in a window'
    )
    parser.add_argument(
        '--interval', type=int, default=1, help='show every n-th image'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds per window'
    )
