"""Statistics, figures and a report of the gates of trained checkpoints.

    fgc-mm analyze CONFIG CHECKPOINT \\
        [CHECKPOINT ...] --out DIR

One pass over the test set stores, for each checkpoint and image, the pooled
features, logits, probabilities and masks of every gate, and MACs, label,
prediction and scores, in DIR/passes; a second run with the same weights,
config and images loads them, and an interrupted pass is continued. From these
arrays are computed: mutual information of feature and gate clusters,
embeddings of features and gates, execution frequencies per class, retrieval
by gate vectors, common neighbours, error by MACs, cheapest and most expensive
images, dead and always-open channels, and calibration. Written to DIR:
report.html (one file that opens offline), numbers.json, tables/*.csv and
figures/*.{png,svg}. Several checkpoints (of several epochs or methods) are
shown next to each other.
"""

from argparse import ArgumentParser
from pathlib import Path

from fgc_mm.cli.arguments import add_config


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='its checkpoint, or several',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder to write to',
    )
    parser.add_argument(
        '--split', choices=['test', 'train'], default='test',
        help='data set (default: test); training images are not augmented',
    )  # fmt: skip
    parser.add_argument(
        '--images', type=int, metavar='N',
        help='number of images, at even distances; default: all',
    )  # fmt: skip
    parser.add_argument(
        '--sites', nargs='+', default=(), metavar='SITE',
        help='names or shell patterns; default: all gated sites',
    )  # fmt: skip
    parser.add_argument(
        '--gate-vector', default='logits',
        help='gate vector of an image: logits (default, as in the coupling '
        'loss), probs or mask',
    )  # fmt: skip
    parser.add_argument(
        '--clusters', type=int, metavar='K',
        help='number of clusters of K-means; default: number of classes',
    )  # fmt: skip
    parser.add_argument(
        '--neighbors', type=int, metavar='K',
        help='number of neighbours K; default: a fiftieth of the images, at '
        'most 200',
    )  # fmt: skip
    parser.add_argument(
        '--embedding', default='auto',
        help='umap, tsne, pca or auto (default): umap where umap-learn is '
        'installed, else tsne',
    )  # fmt: skip
    parser.add_argument(
        '--exchange', action='store_true',
        help='also run the network with the masks of other images, which '
        'takes as long as three tests',
    )  # fmt: skip
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of all random draws (0)'
    )
    parser.add_argument(
        '--no-pictures', action='store_true',
        help='leave out pictures of single images',
    )  # fmt: skip
