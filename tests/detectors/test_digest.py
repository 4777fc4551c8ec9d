import hashlib

from flawline.detectors.digest import sha256_of


def test_digest_is_that_of_the_whole_file_whatever_its_length(tmp_path):
    for size in (0, 5, 1 << 20, (1 << 20) + 3):
        data = bytes(i % 251 for i in range(251)) * (size // 251 + 1)
        (tmp_path / "file").write_bytes(data[:size])
        assert sha256_of(tmp_path / "file") == hashlib.sha256(data[:size]).hexdigest()
