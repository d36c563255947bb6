"""What every figure shows, how it is computed, and where the paper has it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .measurement import Measurement
from .options import AnalysisOptions

VECTORS = {
    'logits': 'the logits of the gate (its linear output before the sigmoid)',
    'probs': 'the gating probabilities',
    'mask': 'the mask',
}


@dataclass(frozen=True)
class Caption:
    """The text below a figure.

    Attributes:
        shows: What can be seen.
        computed: How it is computed; names in braces are filled in.
        paper: Its figure in the FGC paper, ``''`` for none.
    """

    shows: str
    computed: str
    paper: str = ''

    def of(
        self, found: Measurement, options: AnalysisOptions, site: str = ''
    ) -> Caption:
        """With the numbers of this analysis filled in."""
        values = dict(
            name=found.name,
            site=site,
            clusters=found.clusters,
            neighbors=found.neighbors,
            images=len(found.stored),
            clustered=min(len(found.stored), options.most_images),
            embedded=len(found.embedded),
            method=' and '.join(
                dict.fromkeys(e.method for e in found.embeddings)
            ),
            vectors=VECTORS[options.gate_vector],
            seed=options.seed,
            bins=options.bins,
            confidence_bins=len(found.calibration.bins)
            if found.calibration
            else 0,
        )
        return replace(
            self,
            shows=self.shows.format(**values),
            computed=self.computed.format(**values),
        )


SECTIONS = {
    'clusters': (
        'Do features and gates group images alike?',
        'Feature-gate coupling asks that images with similar features take '
        'similar gates. Here both are clustered apart from each other, and '
        'the clusters compared.',
    ),
    'embeddings': (
        'Features and gates as maps',
        'Each point is an image. Where the gates know the classes, the lower '
        'maps show groups as the upper ones do.',
    ),
    'frequency': (
        'Which channels run for which class?',
        'A column that changes from row to row is a channel that some '
        'classes use and others do not.',
    ),
    'retrieval': (
        'Images with the nearest gates',
        'Images that take similar paths through the network should look '
        'alike, if gates follow features.',
    ),
    'neighbors': (
        'Do the neighbourhoods agree?',
        'The same question as above for single images instead of clusters: '
        'how many of the nearest images in feature space are near in gate '
        'space too.',
    ),
    'cost': (
        'Are hard images dear?',
        'A dynamic network can spend more on an image that needs it. Whether '
        'it does is a matter of training.',
    ),
    'extremes': ('The cheapest and the dearest images', ''),
    'channels': (
        'Dead and always-open channels',
        'What no image opens can be removed without loss, what every image '
        'opens needs no gate; only what varies is dynamic.',
    ),
    'calibration': (
        'Calibration',
        'Whether the class scores of the gated network can be read as '
        'probabilities.',
    ),
}

CLUSTERS = Caption(
    'Normalised mutual information of clusters in feature space and clusters '
    'in gate space, per site (left), and of either with the classes (right: '
    'filled markers features, hollow ones gates).',
    'K-means with {clusters} clusters on {clustered} images, the best of ten '
    'starts, seed {seed}; features are the pooled activations before the '
    'gate, gates {vectors}. 1: the same groups; the table below also has the '
    'value adjusted for chance.',
    'Fig. 10',
)
EMBEDDINGS = Caption(
    'Features (above) and gates (below) of {embedded} images at the last '
    'sites of {name}, coloured by class; names stand at the medians.',
    '{method}, seed {seed}, started from the first two principal components; '
    'features are pooled activations, gates {vectors}. Axes have no unit.',
    'Figs. 6 and 7',
)
EMBEDDINGS_OVER = Caption(
    'Features (above) and gates (below) of {embedded} images at {site}, over '
    'the checkpoints, coloured by class; names stand at the medians.',
    '{method}, seed {seed}; the first map starts from the first two '
    'principal components, each other one from the map before it, towards '
    'which it is turned, so that places can be compared. Features are '
    'pooled activations, gates {vectors}. Axes have no unit.',
    'Figs. 6 and 7',
)
FREQUENCY = Caption(
    'Execution frequency of the channels at the last sites of {name}, by '
    'class.',
    'Share of the images of a class (of {images} images in all) whose gate '
    'opens the channel; channels in the order of their mean over the classes.',
    'Fig. 8',
)
RETRIEVAL = Caption(
    'For query images (left) those of {clustered} images whose gates are '
    'nearest, by {name}. Blue frame: of the query’s class; dashed frame: of '
    'another. Below: class and similarity.',
    'Cosine similarity of {vectors}, each site scaled to length 1, all '
    'chosen sites side by side; queries drawn with seed {seed}, from '
    'different classes.',
    'Fig. 9',
)
NEIGHBORS = Caption(
    'Left: of the {neighbors} nearest images in feature space, the share '
    'that is among the {neighbors} nearest in gate space. Right: the share '
    'of the nearest images that has the image’s own class (filled markers: '
    'in feature space, hollow ones: in gate space). Dotted: neighbours drawn '
    'at random.',
    'Cosine similarity as in the coupling loss, exact search, mean over '
    '{clustered} images. Gates: {vectors}.',
)
ERROR_BY_MACS = Caption(
    'Error (left) and mean confidence (right) of images that cost about the '
    'same.',
    'Images sorted by their MACs, gates and classifier counted, into '
    '{bins} groups of equal size; images of equal MACs are never parted, so '
    'there can be fewer. Bars: 95 % Wilson intervals. Confidence: the '
    'largest class score.',
)
MACS_OF_ANSWERS = Caption(
    'Distribution of the MACs of images that are classified correctly '
    '(filled) and wrongly (line; if fewer than 30, a stroke per image).',
    'Histograms over common bins, each of total weight 1; in brackets the '
    'number of images.',
)
MACS_OF_CLASSES = Caption(
    'MACs of the images of each class.',
    'Bar: first to third quartile, line across: median, thin line: 5th to '
    '95th percentile.',
)
EXTREMES = Caption(
    'The images on which {name} spends least and most. Blue frame: classified '
    'correctly; dashed frame: wrongly (true class → prediction).',
    'MACs per image, gates and classifier counted; of equal ones the first '
    'in the data set.',
)
CHANNELS = Caption(
    'Share of the channels of each site that no image, some images, or all '
    'images open; diamonds: keep ratio.',
    'Counted over {images} images; a channel is open where its mask is not 0.',
)
CALIBRATION = Caption(
    'Reliability diagrams: accuracy of predictions of similar confidence; '
    'hatched: the gap to the confidence. ECE: expected calibration error. '
    'Below: share of the images.',
    '{confidence_bins} bins of equal width of the largest class score; ECE is '
    'the mean gap, weighted by images (Guo et al., ICML 2017).',
)
