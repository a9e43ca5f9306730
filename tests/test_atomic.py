import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from natjax.atomic import new_file, new_folder, write_bytes, write_text
from natjax.errors import DataError, StoreError, WorkdirError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_bytes() == "größer".encode()
    assert names(tmp_path) == ["a.txt"]


def test_a_file_in_a_missing_folder_is_an_error_of_the_kind_asked_for(tmp_path):
    with pytest.raises(WorkdirError, match=r"absent/a\.txt: cannot be written \(No such file"):
        write_bytes(tmp_path / "absent" / "a.txt", b"x")
    with pytest.raises(DataError):
        write_bytes(tmp_path / "absent" / "a.txt", b"x", DataError)


def test_a_file_appears_when_its_block_ends(tmp_path):
    with new_file(tmp_path / "a") as temporary:
        temporary.write_text("one")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "one"
    for failure in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(failure), new_file(tmp_path / "a") as temporary:
            temporary.write_text("two")
            raise failure
    with pytest.raises(DataError, match=r"b/a: cannot be written"), new_file(tmp_path / "b" / "a", DataError) as file:
        file.write_text("x")
    assert (tmp_path / "a").read_text() == "one"
    assert names(tmp_path) == ["a"]


def test_a_folder_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "folder"
    with new_folder(path) as new:
        (new / "inner").mkdir()
        (new / "inner" / "a").write_text("x")
        assert not path.exists()
    assert (path / "inner" / "a").read_text() == "x"
    assert names(path.parent) == ["folder"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_folder_whose_block_fails_leaves_the_old_one(tmp_path, failure):
    with new_folder(tmp_path / "folder") as new:
        (new / "a").write_text("old")
    with pytest.raises(failure), new_folder(tmp_path / "folder", replace=True) as new:
        (new / "a").write_text("new")
        raise failure
    assert (tmp_path / "folder" / "a").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    with new_folder(tmp_path / "folder") as new:
        (new / "a").write_text("old")
    with pytest.raises(WorkdirError, match=r"folder: cannot be written .*name another path"):  # noqa: SIM117
        with new_folder(tmp_path / "folder") as new:
            (new / "b").write_text("new")
    assert (tmp_path / "folder" / "a").read_text() == "old"
    with new_folder(tmp_path / "folder", replace=True) as new:
        (new / "b").write_text("new")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["b"]


def test_a_file_where_a_parent_should_be(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(StoreError, match=r"a/b: cannot be written"), new_folder(tmp_path / "a" / "b", StoreError):
        pass
    assert (tmp_path / "a").read_text() == "x"


def test_a_file_that_outgrows_the_limit_of_the_process(tmp_path):
    (tmp_path / "a").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WorkdirError, match=r"a: cannot be written \(File too large\); raise the file size limit"):
            write_bytes(tmp_path / "a", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def on_a_tiny_disk(folder, program: str, size: str = "64k") -> str:
    """Runs a program with `folder` on a file system of its own that holds `size`, gone afterwards."""
    unshare = shutil.which("unshare")
    mount = f'mount -t tmpfs -o size={size} tiny "$1"'
    apart = [unshare, "-rm", "sh", "-c"]  # mounts of its own, so that nothing stays mounted
    if not unshare or subprocess.run([*apart, mount, "sh", str(folder)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*apart, f'{mount} && exec "$2" -c "$3" "$1"', "sh", str(folder), sys.executable, program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_keeps_the_old_file_and_the_old_folder(tmp_path):
    said = on_a_tiny_disk(
        tmp_path,
        """
import os, sys
from pathlib import Path
import numpy as np
from natjax.atomic import new_folder, write_bytes
from natjax.errors import WorkdirError
disk = Path(sys.argv[1])
write_bytes(disk / "file", b"old")
with new_folder(disk / "folder") as new:
    (new / "a").write_bytes(b"old")
def fill(folder):
    with new_folder(folder, replace=True) as new:
        (new / "a").write_bytes(bytes(20_000))
        np.save(new / "b.npy", np.zeros(60_000, np.uint8))
for attempt in (lambda: write_bytes(disk / "file", bytes(100_000)), lambda: fill(disk / "folder")):
    try:
        attempt()
    except WorkdirError as error:
        print(error)
assert (disk / "file").read_bytes() == (disk / "folder" / "a").read_bytes() == b"old"
print(sorted(p.name for p in disk.rglob("*")))
""",
    )
    full = "cannot be written (No space left on device); free some space and run the same command again"
    assert said.splitlines() == [f"{tmp_path}/file: {full}", f"{tmp_path}/folder: {full}", "['a', 'file', 'folder']"]


def test_a_killed_writer_leaves_no_folder_and_the_next_one_succeeds(tmp_path):
    program = (
        "import sys\nfrom natjax.atomic import new_folder\n"
        "with new_folder(sys.argv[1]) as new:\n"
        "    (new / 'a').write_text('half')\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    path = tmp_path / "folder"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "ready\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert not path.exists()
    with new_folder(path) as new:
        (new / "a").write_text("whole")
    assert (path / "a").read_text() == "whole"
