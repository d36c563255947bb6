"""Files that cannot be written."""

import pytest

from fgc_mm.reliability.atomic_file import check_writable, write_atomically


def test_the_error_names_the_file(tmp_path):
    file = tmp_path / ('a' * 250)  # the temporary file has a longer name
    with pytest.raises(OSError) as caught:
        write_atomically(b'x', file)
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        check_writable(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_a_check_leaves_nothing(tmp_path):
    check_writable(tmp_path / 'new' / 'folder' / 'a.pkl')
    assert list(tmp_path.iterdir()) == []


def test_a_check_names_the_file(tmp_path):
    (tmp_path / 'file').write_text('')
    path = tmp_path / 'file' / 'folder' / 'a.pkl'
    with pytest.raises(NotADirectoryError) as caught:
        check_writable(path)
    assert caught.value.filename == str(path)


def test_the_error_of_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError) as caught:
        write_atomically(b'x', tmp_path / 'a.json')
    assert caught.value.filename == str(tmp_path / 'a.json')
    assert list(tmp_path.iterdir()) == []


def test_links_and_permissions_stay(tmp_path):
    file, link = tmp_path / 'folder' / 'file', tmp_path / 'link'
    write_atomically(b'old', file)
    file.chmod(0o664)
    link.symlink_to(file)
    write_atomically(b'new', link)
    assert link.is_symlink() and file.read_bytes() == b'new'
    assert file.stat().st_mode & 0o777 == 0o664
