"""Which library should keep an index of a million embeddings: time to build, recall, time of a query, memory, disk.

In: rows and dimensions, and the table of embeddings whose geometry the made rows have. Out: a line for each index,
beside the exact search. Each runs in a process of its own on one thread; building is told in CPU time.

    python benchmarks/library/vector_indexes.py embeddings.npz --rows 1000000 --dims 128

Rows are made from real ones: a point between a real row and one of its neighbours, with noise, and for more dimensions
than the table has a fixed random layer of tanh units. Needs `pip install usearch faiss-cpu hnswlib`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

NEIGHBOURS = 10
QUERIES = 500
INDEXES = ("exact", "usearch f16", "usearch bf16", "usearch i8", "hnswlib", "faiss hnsw", "faiss ivf", "faiss ivf f16")
CONNECT, BUILD_DEPTH, SEARCH_DEPTH = 16, 128, 64  # of the graph: usearch's defaults, for all alike
LISTS, PROBES = 4096, 32  # of an inverted file


def make_rows(real: np.ndarray, rows: int, dims: int, seed: int = 0) -> np.ndarray:
    """Unit rows [rows, dims] whose neighbourhoods are those of the real rows."""
    rng = np.random.default_rng(seed)
    real = unit(real - real.mean(0))
    near = np.concatenate([(-(block @ real.T)).argpartition(8, axis=1)[:, :8] for block in np.array_split(real, 64)])
    layer = rng.normal(size=(real.shape[1], dims)).astype(np.float32)
    made = np.empty((rows, dims), np.float32)
    for at in range(0, rows, 16384):
        count = min(16384, rows - at)
        first = rng.integers(len(real), size=count)
        second = near[first, rng.integers(8, size=count)]
        share = rng.random((count, 1), np.float32)
        block = real[first] * share + real[second] * (1 - share)
        block += 0.3 / np.sqrt(real.shape[1]) * rng.normal(size=block.shape).astype(np.float32)
        if dims != real.shape[1]:
            block = np.tanh(2 * block @ layer)
        made[at : at + count] = block
    made -= made.mean(0)
    return unit(made)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def build_and_search(name: str, folder: Path) -> dict:
    """Build, save and open again one index; times, recall at 10, memory and disk."""
    base = np.load(folder / "base.npy", mmap_mode="r")
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    place = folder / f"{name.replace(' ', '_')}.index"
    library, _, kind = name.partition(" ")
    cpu = process_time()
    if library == "usearch":
        from usearch.index import Index

        index = Index(ndim=base.shape[1], metric="cos", dtype=kind, connectivity=CONNECT, expansion_add=BUILD_DEPTH)
        for at in range(0, len(base), 65536):
            block = np.asarray(base[at : at + 65536])
            index.add(np.arange(at, at + len(block)), block, threads=1)
        index.save(str(place))
        built = process_time() - cpu
        del index
        begin = perf_counter()
        index = Index.restore(str(place), view=True)
        index.expansion_search = SEARCH_DEPTH
        find = lambda query: index.search(query, NEIGHBOURS, threads=1).keys  # noqa: E731
    elif library == "hnswlib":
        import hnswlib

        index = hnswlib.Index("cosine", base.shape[1])
        index.init_index(len(base), M=CONNECT, ef_construction=BUILD_DEPTH)
        index.set_num_threads(1)
        for at in range(0, len(base), 65536):
            index.add_items(np.asarray(base[at : at + 65536]), np.arange(at, min(at + 65536, len(base))))
        index.save_index(str(place))
        built = process_time() - cpu
        index = hnswlib.Index("cosine", base.shape[1])
        begin = perf_counter()
        index.load_index(str(place))
        index.set_ef(SEARCH_DEPTH)
        index.set_num_threads(1)
        find = lambda query: index.knn_query(query, NEIGHBOURS)[0][0]  # noqa: E731
    elif library == "faiss":
        import faiss

        faiss.omp_set_num_threads(1)
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(base.shape[1], CONNECT, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_DEPTH, SEARCH_DEPTH
        else:
            coded = "SQfp16" if kind.endswith("f16") else "Flat"
            index = faiss.index_factory(base.shape[1], f"IVF{LISTS},{coded}", faiss.METRIC_INNER_PRODUCT)
            index.nprobe = PROBES
            index.train(np.asarray(base[:: max(1, len(base) // (LISTS * 40))]))
        for at in range(0, len(base), 65536):
            index.add(np.asarray(base[at : at + 65536]))
        faiss.write_index(index, str(place))
        built = process_time() - cpu
        del index
        begin = perf_counter()
        index = faiss.read_index(str(place), faiss.IO_FLAG_MMAP)
        if kind == "hnsw":
            index.hnsw.efSearch = SEARCH_DEPTH
        else:
            index.nprobe = PROBES
        find = lambda query: index.search(query[None], NEIGHBOURS)[1][0]  # noqa: E731
    else:
        built, place = 0.0, folder / "base.npy"
        begin = perf_counter()
        base = np.asarray(np.load(place))
        find = lambda query: (-(base @ query)).argpartition(NEIGHBOURS)[:NEIGHBOURS]  # noqa: E731
    opened = perf_counter() - begin
    hits, times = 0, []
    for query, right in zip(queries, truth, strict=True):
        begin = perf_counter()
        found = find(query)
        times.append(perf_counter() - begin)
        hits += len(np.intersect1d(np.asarray(found).astype(np.int64), right))
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return {
        "index": name,
        "build_cpu_s": round(built, 1),
        "open_s": round(opened, 3),
        "recall": round(hits / truth.size, 4),
        "query_ms": round(1000 * float(np.median(times)), 3),
        "first_ms": round(1000 * times[0], 2),
        "peak_mib": round(peak),
        "disk_mib": round(place.stat().st_size / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--only", nargs="*", default=INDEXES)
    parser.add_argument("--folder", type=Path, help="used by the processes of this script")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(build_and_search(options.only[0], options.folder)), flush=True)
        return
    with tempfile.TemporaryDirectory() as made, np.load(options.table) as table:
        folder = Path(made)
        rows = make_rows(table["embedding"], options.rows + QUERIES, options.dims)
        queries, base = rows[:QUERIES], rows[QUERIES:]
        np.save(folder / "base.npy", base)
        np.save(folder / "queries.npy", queries)
        truth = [np.argsort(-(base @ query), kind="stable")[:NEIGHBOURS] for query in queries]
        np.save(folder / "truth.npy", np.stack(truth))
        del rows, base
        print(f"{options.rows} rows of {options.dims}", flush=True)
        for name in options.only:
            command = [sys.executable, __file__, str(options.table), "--folder", made, "--only", name]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            subprocess.run(command, check=False, env=environment)


if __name__ == "__main__":
    main()
