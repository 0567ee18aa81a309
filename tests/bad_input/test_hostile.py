"""Group C, the hostile: files that HDF5 opens and that would read, write, or eat something else.

33 external storage, absolute   HOSTILE       44 deep groups            HOSTILE
34 external storage, relative   HOSTILE       45 many links, attributes HOSTILE
35 external storage, device     HOSTILE       46 shape of terabytes     HOSTILE
36 external storage, FIFO       HOSTILE       47 shape of a gigabyte    HOSTILE
37 external storage, written    the secret is unchanged: no file is ever opened for writing
38 external link                HOSTILE       48 compressed bomb        HOSTILE
39 soft link                    HOSTILE       49 huge chunk             HOSTILE
40 soft link to itself          HOSTILE       50 unknown filter         HOSTILE
41 virtual dataset              HOSTILE       51 library of a filter    test_no_filter_is_loaded
42 virtual, source missing      HOSTILE       52 object references      HOSTILE
43 cycle of hard links          HOSTILE       53 compound, opaque, enum HOSTILE
                                              54 variable length        HOSTILE
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from geomkit.store import Run, verify_run
from tests.bad_input.runs import SECRET, Change, refused, replace, spoil
from tests.small_run import DIM, SITES


def external(target: str) -> Change:
    def change(file: Any, folder: Path) -> None:
        shape = file["states/last"].shape
        path = str(folder / target) if target in ("secret.bin", "fifo") else target
        if target == "fifo":
            os.mkfifo(path)
        del file["states/last"]
        file.create_dataset("states/last", shape, "<f4", external=[(path, 0, h5py.h5f.UNLIMITED)])

    return change


def linked(link: Any) -> Change:
    def change(file: Any, _: Path) -> None:
        del file["states/last"]
        file["states/last"] = link

    return change


def virtual(file: Any, folder: Path) -> None:
    shape = file["states/last"].shape
    del file["states/last"]
    layout = h5py.VirtualLayout(shape, "<f4")
    layout[...] = h5py.VirtualSource(folder / "absent.h5", "x", shape)
    file.create_virtual_dataset("states/last", layout)


def bomb(size: int) -> Change:
    def change(file: Any, _: Path) -> None:
        del file["states/last"]
        chunks = (1, len(SITES), DIM)
        file.create_dataset(
            "states/last", (size, len(SITES), DIM), "<f4", chunks=chunks, fletcher32=True
        )

    return change


def unallocated(file: Any, _: Path) -> None:
    shape = file["states/last"].shape
    del file["states/last"]
    file.create_dataset("states/last", shape, "<f4", chunks=shape, fletcher32=True)


def unknown_filter(file: Any, _: Path) -> None:
    shape = file["states/last"].shape
    del file["states/last"]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(shape)
    creation.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.IEEE_F32LE
    made = h5py.h5d.create(file["states"].id, b"last", kind, space, creation)
    made.write_direct_chunk((0, 0, 0), bytes(4 * math.prod(shape)))


def cycle(file: Any, _: Path) -> None:
    file["states/again"] = file["/"]


def deep(file: Any, _: Path) -> None:
    group = file["states"]
    for _level in range(300):
        group = group.create_group("g")


def many_links(file: Any, _: Path) -> None:
    for number in range(5000):
        file[f"l{number}"] = file["sites"]


def extra_attribute(file: Any, _: Path) -> None:
    file.attrs["note"] = np.bytes_(b"x" * 60_000)


def many_attributes(file: Any, _: Path) -> None:
    for number in range(2000):
        file.attrs[f"a{number}"] = number


def huge_chunk(file: Any, _: Path) -> None:
    """One element is asked for, and a gigabyte is read into memory."""
    shape = file["states/last"].shape
    del file["states/last"]
    options = {"maxshape": (None, len(SITES), DIM), "compression": "gzip"}
    file.create_dataset("states/last", shape, "<f4", chunks=(1 << 23, len(SITES), DIM), **options)


def huge_chunk_that_is_checked(file: Any, _: Path) -> None:
    shape = file["states/last"].shape
    del file["states/last"]
    options = {"maxshape": (None, len(SITES), DIM), "fletcher32": True}
    file.create_dataset("states/last", shape, "<f4", chunks=(1 << 10, len(SITES), DIM), **options)
    file["states/last"][...] = 1.0


def bomb_of_zeros(file: Any, _: Path) -> None:
    """Some kilobytes that unpack to 64 MiB."""
    del file["states/last"]
    shape = (1 << 19, len(SITES), DIM)
    file.create_dataset("states/last", shape, "<f4", chunks=shape, compression="gzip")
    file["states/last"][0] = 0


def opaque(file: Any, _: Path) -> None:
    count = len(file["samples/ok"])
    del file["samples/ok"]
    values = np.zeros(count, "V1")
    file.create_dataset("samples/ok", data=values, chunks=(count,), fletcher32=True)


def variable_strings(file: Any, _: Path) -> None:
    ids = [value.decode() for value in file["samples/id"][()]]
    del file["samples/id"]
    file.create_dataset("samples/id", data=ids, dtype=h5py.string_dtype(), chunks=(len(ids),))


def group_for_dataset(file: Any, _: Path) -> None:
    del file["sites"]
    file.create_group("sites")


def dataset_for_group(file: Any, _: Path) -> None:
    del file["states"]
    file.create_dataset("states", data=[1.0])


def references(file: Any, _: Path) -> None:
    count = len(file["samples/index"])
    del file["samples/index"]
    file.create_dataset("samples/index", (count,), h5py.ref_dtype, chunks=(count,))


HOSTILE: dict[str, tuple[Change, str]] = {
    "external storage, absolute": (external("secret.bin"), "chunked storage inside the file"),
    "external storage, relative": (external("../../secret.bin"), "chunked storage inside the file"),
    "external storage, device": (external("/dev/urandom"), "chunked storage inside the file"),
    "external storage, FIFO": (external("fifo"), "chunked storage inside the file"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "/x")), "link to elsewhere"),
    "soft link": (linked(h5py.SoftLink("/states/mean")), "link to elsewhere"),
    "soft link to itself": (linked(h5py.SoftLink("/states/last")), "link to elsewhere"),
    "dangling soft link": (linked(h5py.SoftLink("/nowhere")), "link to elsewhere"),
    "virtual dataset": (virtual, "chunked storage inside the file"),
    "hard-link cycle": (cycle, "is no dataset"),
    "deep groups": (deep, "is no dataset"),
    "thousands of links": (many_links, "expected exactly"),
    "thousands of attributes": (many_attributes, "and no others"),
    "large attribute": (extra_attribute, "and no others"),
    "bomb of zeros": (bomb_of_zeros, "one filter fletcher32"),
    "huge chunk": (huge_chunk, "one filter fletcher32"),
    "huge chunk with a checksum": (huge_chunk_that_is_checked, "larger than the shape"),
    "shape bomb": (bomb(1 << 36), "declares"),
    "gigabyte": (bomb(1 << 24), "declares"),
    "unallocated": (unallocated, "declares"),
    "compressed": (replace("states/last", compression="gzip"), "one filter fletcher32"),
    "lzf": (replace("states/last", compression="lzf"), "one filter fletcher32"),
    "no checksum": (replace("states/last", fletcher32=False), "one filter fletcher32"),
    "not chunked": (replace("states/last", chunks=None, fletcher32=False), "chunked storage"),
    "unknown filter": (unknown_filter, "one filter fletcher32"),
    "compound": (replace("samples/ok", lambda x: x.astype([("a", "u1")])), "expected uint8"),
    "opaque": (opaque, "expected uint8"),
    "enumeration": (replace("samples/ok", lambda x: x.astype(bool)), "expected uint8"),
    "variable-length strings": (variable_strings, "fixed-size strings"),
    "references": (references, "expected int64"),
    "group in place of a dataset": (group_for_dataset, "is no dataset"),
    "dataset in place of a group": (dataset_for_group, "expected a group"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_shards_are_refused(run: Run, tmp_path: Path, case: str) -> None:
    change, message = HOSTILE[case]
    spoil(run, change)
    refused(run, message)
    assert (tmp_path / "secret.bin").read_bytes() == SECRET


LIBRARY = """
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { fclose(fopen("%s", "w")); }
int H5PLget_plugin_type(void) { return 0; }
const void *H5PLget_plugin_info(void) { return 0; }
"""
READ = "import h5py, sys; print(h5py.File(sys.argv[1])['states/last'][()])"
VERIFY = """
import sys; from pathlib import Path; from geomkit.store import verify_run
print(verify_run(Path(sys.argv[1])))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to make the library")
def test_no_filter_is_loaded_from_a_library_that_the_environment_names(
    run: Run, tmp_path: Path
) -> None:
    """Plain h5py loads it; neither this process nor its child asks for it."""
    mark, source = tmp_path / "loaded", tmp_path / "filter.c"
    source.write_text(LIBRARY % mark)
    (tmp_path / "plugins").mkdir()
    library = tmp_path / "plugins" / "libfilter.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    spoil(run, unknown_filter)
    environment = {**os.environ, "HDF5_PLUGIN_PATH": str(tmp_path / "plugins")}

    def python(code: str, argument: Path) -> str:
        command = [sys.executable, "-c", code, str(argument)]
        root = Path(__file__).parents[2]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=root
        )
        return done.stdout + done.stderr

    python(READ, run.path / "base" / "shard-00000.h5")
    assert mark.exists(), "the library would not have been loaded anyway: nothing was tested"
    mark.unlink()
    code = "import sys; from pathlib import Path; from geomkit.store import verify_run; "
    assert "one filter fletcher32" in python(
        code + "print(verify_run(Path(sys.argv[1])))", run.path
    )
    assert not mark.exists()
    assert verify_run(run.path)
