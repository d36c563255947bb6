"""Captions: what a figure shows, how it is computed, and its source."""

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
        'Do features and gates form the same clusters?',
        'Feature-gate coupling trains images with similar features to have '
        'similar gate vectors. Here features and gate vectors are clustered '
        'separately, and the clusters are compared.',
    ),
    'embeddings': (
        'Embeddings of features and gates',
        'Each point is an image. If gate vectors depend on the class, the '
        'lower plots show groups as the upper ones do.',
    ),
    'frequency': (
        'Which channels are open for which class?',
        'A column that changes from row to row is a channel that is open for '
        'some classes and closed for others.',
    ),
    'retrieval': (
        'Images with the nearest gate vectors',
        'If gate vectors depend on features, images with similar gate vectors '
        'should look similar.',
    ),
    'neighbors': (
        'Do the neighbourhoods agree?',
        'The same comparison for single images instead of clusters: how many '
        'of the nearest images in feature space are also among the nearest in '
        'gate space.',
    ),
    'cost': (
        'Do hard images cost more?',
        'A dynamic network can compute more channels for hard images. Whether '
        'it does depends on the training.',
    ),
    'extremes': ('The cheapest and the most expensive images', ''),
    'exchange': (
        'Does an image need its own masks?',
        'The network is run with the masks of other images. If the error is '
        'the same with masks of any other image, the network does not need '
        'masks chosen by image. If it rises with these, but not with masks of '
        'the same class, the gates choose by class. With masks of the same '
        'class it may even fall, since these depend on the true class.',
    ),
    'channels': (
        'Dead and always-open channels',
        'A channel that is open for no image can be removed, a channel that '
        'is open for every image needs no gate; only the others are dynamic.',
    ),
    'calibration': (
        'Calibration',
        'Whether the class scores of the gated network are calibrated '
        'probabilities.',
    ),
}

CLUSTERS = Caption(
    'Normalised mutual information of clusters in feature space and clusters '
    'in gate space, per site (left), and of each with the classes (right: '
    'filled markers features, hollow ones gates).',
    'K-means with {clusters} clusters on {clustered} images, the best of ten '
    'starts, seed {seed}; features are the pooled activations before the '
    'gate, gates {vectors}. 1: equal clusters; the table below also has the '
    'value adjusted for chance.',
    'Fig. 10',
)
EMBEDDINGS = Caption(
    'Features (above) and gates (below) of {embedded} images at the last '
    'sites of {name}, coloured by class; names are at the medians.',
    '{method}, seed {seed}, started from the first two principal components; '
    'features are pooled activations, gates {vectors}. Axes have no unit.',
    'Figs. 6 and 7',
)
EMBEDDINGS_OVER = Caption(
    'Features (above) and gates (below) of {embedded} images at {site}, over '
    'the checkpoints, coloured by class; names are at the medians.',
    '{method}, seed {seed}; the first map starts from the first two '
    'principal components, each later one from the map before it, to which '
    'it is aligned by a rotation, so that positions can be compared. '
    'Features are pooled activations, gates {vectors}. Axes have no unit.',
    'Figs. 6 and 7',
)
FREQUENCY = Caption(
    'Execution frequency of the channels at the last sites of {name}, by '
    'class.',
    'Fraction of the images of a class (of {images} images in all) whose gate '
    'opens the channel; channels in the order of their mean over the classes.',
    'Fig. 8',
)
RETRIEVAL = Caption(
    'For query images (left), the images among {clustered} with the nearest '
    'gate vectors of {name}. Blue frame: same class as the query; dashed '
    'frame: another class. Below: class and similarity.',
    'Cosine similarity of {vectors}, each site normalised to length 1, all '
    'chosen sites concatenated; queries drawn with seed {seed}, from '
    'different classes.',
    'Fig. 9',
)
NEIGHBORS = Caption(
    'Left: of the {neighbors} nearest images in feature space, the fraction '
    'that is among the {neighbors} nearest in gate space. Right: the fraction '
    'of the nearest images that has the class of the image (filled markers: '
    'in feature space, hollow ones: in gate space). Dotted: neighbours drawn '
    'at random.',
    'Cosine similarity as in the coupling loss, exact search, mean over '
    '{clustered} images. Gates: {vectors}.',
)
ERROR_BY_MACS = Caption(
    'Error (left) and mean confidence (right) over the MACs of the images.',
    'Images sorted by their MACs, gates and classifier counted, into '
    '{bins} groups of equal size; images with equal MACs stay in one group, '
    'so there can be fewer. Bars: 95 % Wilson intervals. Confidence: the '
    'largest class score.',
)
MACS_OF_ANSWERS = Caption(
    'Distribution of the MACs of images that are classified correctly '
    '(filled) and wrongly (line; if fewer than 30, a mark per image).',
    'Histograms over common bins, each of total weight 1; in brackets the '
    'number of images.',
)
MACS_OF_CLASSES = Caption(
    'MACs of the images of each class.',
    'Bar: first to third quartile, line across: median, thin line: 5th to '
    '95th percentile. Of more than 25 classes, the twelve with the lowest and '
    'the twelve with the highest medians.',
)
EXTREMES = Caption(
    'The images for which {name} computes the fewest and the most MACs. Blue '
    'frame: classified correctly; dashed frame: wrongly (true class → '
    'prediction).',
    'MACs per image, gates and classifier counted; of images with equal MACs '
    'the first in the data set.',
)
CHANNELS = Caption(
    'Fraction of the channels of each site that are open for no image, for '
    'some images, or for all images; diamonds: keep ratio.',
    'Counted over {images} images; a channel is open where its mask is not 0.',
)
CALIBRATION = Caption(
    'Reliability diagrams: accuracy of predictions of similar confidence; '
    'hatched: the gap to the confidence. ECE: expected calibration error. '
    'Below: percentage of the images.',
    '{confidence_bins} bins of equal width of the largest class score; ECE is '
    'the mean gap, weighted by images (Guo et al., ICML 2017).',
)
EXCHANGED_MASKS = Caption(
    'Error with the masks that the gates compute for the image, with those '
    'of another image of its class, with those of any other image, and with '
    'the same masks for all images.',
    'Each image takes all masks of one other image, drawn with seed {seed}, '
    'so for images of one size the MACs are the same in the mean; an image '
    'that is alone in its class keeps its own. Masks include the factors of '
    'gates that scale channels. Most frequent masks: a channel is open if '
    'more than half of the {images} images open it.',
)
