"""Classifies image files with the file of a dynamic network.

    python -m fgc_mm.runtime model.fgc cat.jpg dog.jpg --top 5

Needs numpy, and Pillow or OpenCV; no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from math import isfinite

from fgc_mm.errors import FGCError
from fgc_mm.missing_package import missing_sentence

BAD_INPUT = 2

try:
    from fgc_mm.runtime.classifier import Classifier, Prediction
    from fgc_mm.runtime.model import Model
except ModuleNotFoundError as error:  # numpy
    sentence = missing_sentence(error)
    if sentence is None:
        raise
    print(f'error: {sentence}', file=sys.stderr)
    sys.exit(BAD_INPUT)


def main(arguments: list[str] | None = None) -> int:
    """Print the classes of every image; returns the exit code."""
    args = parse_args(arguments)
    if hasattr(sys.stdout, 'reconfigure'):  # names that it cannot encode
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        with Model.load(args.model) as model:
            _classify(Classifier(model), args)
    except (FGCError, MemoryError) as error:
        return _print_error(str(error) or 'there is not enough memory.')
    except BrokenPipeError:  # e.g. output into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _print_error(
            f'{error.filename}: {error.strerror}; check the path.'
        )
    except KeyboardInterrupt:
        return 130
    return 0


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line arguments."""
    parser = argparse.ArgumentParser(
        prog='python -m fgc_mm.runtime',
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument('model', help='file of tools/export/bundle.py')
    parser.add_argument('pictures', nargs='+', help='image files')
    parser.add_argument(
        '--top', type=_count, default=5, help='number of classes to print (5)'
    )
    parser.add_argument(
        '--threads', type=_count, default=1, help='threads per image (1)'
    )
    parser.add_argument(
        '--json', action='store_true', help='one JSON object per line'
    )
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f'{text} is not a whole number of at least 1'
        )
    return int(text)


def _classify(classifier: Classifier, args: argparse.Namespace) -> None:
    show = _as_json if args.json else _as_text
    for picture in args.pictures:
        show(classifier(picture, args.top, args.threads))


def _print_error(sentence: str) -> int:
    print(f'error: {sentence}', file=sys.stderr)
    return BAD_INPUT


def _as_json(prediction: Prediction) -> None:
    fields = asdict(prediction)
    for key in ('macs', 'share'):
        fields[key] = _number(fields[key])
    fields['classes'] = [(k, _number(p)) for k, p in prediction.classes]
    print(json.dumps(fields), flush=True)


def _number(number: float) -> float | None:
    """The number; ``None`` for nan and inf, which JSON lacks."""
    return number if isfinite(number) else None


def _as_text(prediction: Prediction) -> None:
    print(prediction.picture)
    for name, probability in prediction.classes:
        print(f'  {100 * probability:6.2f} %  {name}')
    print(f'  {cost(prediction)}', flush=True)


def cost(prediction: Prediction) -> str:
    """Cost of an image, in words."""
    return (
        f'{prediction.macs / 1e6:,.2f} million MACs '
        f'({100 * prediction.share:.1f} % of the dense network), '
        f'{100 * prediction.open:.1f} % of the gated channels open, '
        f'{duration(prediction.milliseconds)}'
    )


def duration(milliseconds: float) -> str:
    """A time with at least two digits."""
    digits = 2 if milliseconds >= 0.1 else 4
    return f'{milliseconds:.{digits}f} ms'


if __name__ == '__main__':
    sys.exit(main())
