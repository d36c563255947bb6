"""Prunes a trained dense model statically to a given ratio of MACs.

    fgc-mm prune-static CONFIG CHECKPOINT --importance fpgm \\
        --pruning-ratio 0.55 --out DIR

writes DIR/NAME.py (a config), DIR/NAME.pth (the remaining weights) and
DIR/NAME_channel_map.json (the remaining channels). fgc-mm train fine-tunes the
network (the config loads the weights), fgc-mm test tests it:

    fgc-mm train DIR/NAME.py
    fgc-mm test DIR/NAME.py DIR/NAME.pth

The folder may be moved. ``--zeroed`` removes only the channels that
``SoftFilterPruningHook`` has set to zero in training; outputs do not change.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser, 'config of the dense model')
    parser.add_argument(
        '--importance', default='fpgm',
        help='criterion by which channels are removed: fpgm (default), '
        'group_norm, bn_scale or random',
    )  # fmt: skip
    parser.add_argument(
        '--pruning-ratio', type=float, default=0.55,
        help='fraction of the MACs to remove (default: 0.55)',
    )  # fmt: skip
    parser.add_argument(
        '--zeroed', action='store_true',
        help='remove the channels zeroed by SoftFilterPruningHook instead',
    )  # fmt: skip
    parser.add_argument('--out', required=True, help='folder to write into')
    parser.add_argument(
        '--name',
        help='of the config (default: IMPORTANCE_CONFIG, or pruned_CONFIG)',
    )
    parser.add_argument('--seed', type=int, default=0, help='for random')
    parser.add_argument(
        '--images', type=int, default=4, help='test images for the check (4)'
    )
