"""Shards that zarr reads."""

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from napari_affmae.engine.results.plan import Blocks
from napari_affmae.engine.results.shard import ZSTD_LEVEL, encode_shard

CASES = [
    ((3, 40, 50), (1, 8, 8), (2, 16, 24)),
    ((40, 50), (8, 8), (40, 56)),
    ((2, 3, 33, 17), (1, 1, 8, 8), (1, 3, 40, 24)),
    ((5, 7), (5, 7), (5, 7)),
]


@pytest.mark.parametrize(("shape", "chunk", "shard"), CASES)
@pytest.mark.parametrize("dtype", ["uint8", "uint32", ">u2", "float16"])
def test_zarr_reads_what_it_could_have_written(tmp_path, shape, chunk, shard, dtype):
    values = np.random.default_rng(0).integers(0, 3, shape).astype(dtype)
    values[..., -1:] = 0
    array = zarr.create_array(
        tmp_path / "a",
        shape=shape,
        chunks=chunk,
        shards=shard,
        dtype=np.dtype(dtype).newbyteorder("<"),
        fill_value=0,
        compressors=ZstdCodec(level=ZSTD_LEVEL),
        config={"write_empty_chunks": True},
    )
    array[:] = values
    blocks = Blocks(shape, shard)
    for number in range(len(blocks)):
        box = blocks.box(number)
        file = tmp_path / "a" / array.metadata.encode_chunk_key(blocks.place(number))
        parts = encode_shard(values[box], chunk, shard)
        assert sum(map(len, parts)) == file.stat().st_size  # only the order of chunks differs
        file.write_bytes(b"".join(parts))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], values)
