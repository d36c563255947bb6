"""Folders as users have them: hidden things, other files, fewer classes."""

import logging

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger

from fgc_mm.datasets import ImageFolder, LoadImage
from fgc_mm.errors import FGCError


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture = np.full((4, 4, 3), 7, np.uint8)
        _, content = cv2.imencode('.png', picture)
        if name.endswith(('.webp', '.tiff', '.jpg')):
            _, content = cv2.imencode(name[name.rindex('.') :], picture)
        (folder / name).write_bytes(content.tobytes())


@pytest.fixture
def root(tmp_path):
    for kind in ('cat', 'dog', 'owl'):
        write(tmp_path / kind, '1.png', '2.jpg')
    return tmp_path


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that were logged."""
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'warning', lines.append)
    assert logger.level <= logging.WARNING
    return lines


def paths(data):
    return [data.get_data_info(i)['img_path'] for i in range(len(data))]


def labels(data):
    return data.get_gt_labels().tolist()


@pytest.mark.parametrize(
    'hidden',
    [
        '.ipynb_checkpoints',
        '.git',
        '__MACOSX/cat',
        '@eaDir',
        'cat/.thumbs',
        'lost+found',
        '$RECYCLE.BIN',
        'System Volume Information',
    ],
)
def test_hidden_folders_are_neither_classes_nor_images(root, hidden):
    write(root / hidden, '1.png', '3.png')
    data = ImageFolder(data_root=str(root))
    assert data.CLASSES == ('cat', 'dog', 'owl')
    assert labels(data) == [0, 0, 1, 1, 2, 2]
    unlabelled = ImageFolder(data_root=str(root), with_label=False)
    assert len(unlabelled) == 6


def test_images_of_every_kind_are_read_and_the_rest_is_counted(root, warnings):
    write(root / 'cat', '3.webp', '4.tiff', '5.JPEG', '._1.jpg')
    for name in ('a.heic', 'b.heic', 'notes.txt', 'README'):
        (root / 'dog' / name).write_text('no image')
    data = ImageFolder(data_root=str(root))
    assert len(data) == 9
    for place in paths(data):
        assert LoadImage().transform(dict(img_path=place)) is not None
    (line,) = warnings
    assert '4 files' in line
    for part in ('2 .heic', '1 without ending', '1 .txt'):
        assert part in line


def test_classes_number_a_folder_that_lacks_one(root):
    for gone in (root / 'cat').iterdir():
        gone.unlink()
    (root / 'cat').rmdir()
    assert labels(ImageFolder(data_root=str(root))) == [0, 0, 1, 1]
    names = ['cat', 'dog', 'owl']
    data = ImageFolder(data_root=str(root), classes=names)
    assert labels(data) == [1, 1, 2, 2] and list(data.CLASSES) == names
    # numbered by name, in whatever order
    data = ImageFolder(data_root=str(root), classes=names[::-1])
    assert labels(data) == [1, 1, 0, 0]
    # titles
    data = ImageFolder(data_root=str(root), classes=['Canis', 'Strix'])
    assert labels(data) == [0, 0, 1, 1]


@pytest.mark.parametrize('classes', [['cat', 'dog'], ['a', 'b'], ['cat'] * 3])
def test_wrong_classes_are_refused(root, classes):
    with pytest.raises(FGCError, match=r"folder '(cat|dog|owl)', but no such"):
        ImageFolder(data_root=str(root), classes=classes)


def test_no_image_is_refused(tmp_path):
    write(tmp_path, '1.png')  # loose, in no class folder
    with pytest.raises(
        FGCError, match=r'no image in the class folders of .* \(no file\)'
    ):
        ImageFolder(data_root=str(tmp_path))
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat' / 'x.heic').touch()
    with pytest.raises(FGCError, match=r'no image in .* \(1 \.heic\)'):
        ImageFolder(data_root=str(tmp_path))


def test_an_empty_class_is_warned_of(root, warnings):
    (root / 'empty').mkdir()
    data = ImageFolder(data_root=str(root))
    assert len(data.CLASSES) == 4
    assert 'empty has no images' in warnings[0]


@pytest.mark.parametrize('end', ['', '\n', '\n\n', '\n  \n'])
def test_blank_lines_of_an_annotation_file(root, end):
    ann = root / 'train.txt'
    ann.write_text('cat/1.png 2\n\ncat/2 b.jpg\t0' + end)
    data = ImageFolder(data_root=str(root), ann_file='train.txt')
    assert labels(data) == [2, 0]
    assert paths(data) == [str(root / 'cat/1.png'), str(root / 'cat/2 b.jpg')]
    ann.write_text('cat/1.png\n\n' + end)
    data = ImageFolder(
        data_root=str(root), ann_file='train.txt', with_label=False
    )
    assert paths(data) == [str(root / 'cat/1.png')]


@pytest.mark.parametrize('line', ['cat/1.png', 'cat/1.png cat', 'a.png -1'])
def test_a_wrong_line_of_an_annotation_file_is_named(root, line):
    (root / 'train.txt').write_text(f'cat/1.png 2\n\n{line}\n')
    with pytest.raises(FGCError, match=r'line 3 of .*train\.txt is'):
        ImageFolder(data_root=str(root), ann_file='train.txt')


@pytest.mark.parametrize('lines', ['cat/1.png ²', 'cat/1.png ₁'])
def test_a_digit_that_is_no_number(root, lines):
    (root / 'train.txt').write_text(lines, encoding='utf-8')
    with pytest.raises(FGCError, match=r'line 1 of .*train\.txt is'):
        ImageFolder(data_root=str(root), ann_file='train.txt')


def test_a_byte_order_mark_belongs_to_no_path(root):
    (root / 'train.txt').write_text('cat/1.png 2\n', encoding='utf-8-sig')
    data = ImageFolder(data_root=str(root), ann_file='train.txt')
    assert paths(data) == [str(root / 'cat/1.png')]


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16'])
def test_lists_of_another_encoding_are_refused(root, encoding):
    file = root / 'list.txt'
    file.write_text('cät\n', encoding=encoding)
    with pytest.raises(FGCError, match=r'list\.txt is not UTF-8 text'):
        ImageFolder(data_root=str(root), ann_file='list.txt')
    with pytest.raises(FGCError, match=r'list\.txt is not UTF-8 text'):
        ImageFolder(data_root=str(root), classes=str(file))


@pytest.mark.parametrize('end', ['', '\n', '\n\n', '\r\n \n'])
def test_blank_lines_of_a_list_of_classes(root, end):
    (root / 'classes.txt').write_text('owl\ncat\ndog' + end)
    data = ImageFolder(
        data_root=str(root / ''), classes=str(root / 'classes.txt')
    )
    assert data.CLASSES == ('owl', 'cat', 'dog')
    assert labels(data) == [1, 1, 2, 2, 0, 0]


def test_classes_that_are_numbers_are_names(tmp_path):
    for number in (1, 2, 10):
        write(tmp_path / str(number), '1.png')
    data = ImageFolder(data_root=str(tmp_path), classes=[1, 2, 10])
    assert data.CLASSES == ('1', '2', '10')
    named = {path.split('/')[-2] for path in paths(data)}
    assert named == set(data.CLASSES)
    for path, label in zip(paths(data), labels(data), strict=True):
        assert data.CLASSES[label] == path.split('/')[-2]


def test_classes_must_be_a_list_of_distinct_names(root):
    with pytest.raises(FGCError, match='classes=3 of ImageFolder is a int'):
        ImageFolder(data_root=str(root), classes=3)
    twice = ['cat', 'cat', 'dog', 'owl']
    with pytest.raises(FGCError, match="has 'cat' 2 times"):
        ImageFolder(data_root=str(root), classes=twice)
