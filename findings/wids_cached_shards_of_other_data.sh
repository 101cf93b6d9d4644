#!/usr/bin/env bash
# wids gives the shards of one data set for those of another: its cache knows a shard by its base name, or by its path alone.
#
# Guess before the run: two data sets with one `cache_dir`, each with a shard `000.tar`, give their own samples; and a shard
# that was written anew gives its new samples.
# Seen with wids 0.1.11 (Python 3.11): with `cache_dir`, what is read first is given for both, birds for dogs, since the copy
# is called `cache_dir/000.tar`, and nothing compares it with the original. Without `cache_dir` local shards too are copied,
# to /tmp/_wids_cache, under their whole path: a shard that is written anew at its place gives the old samples, also in
# later processes, until someone empties that folder. Shards are numbered alike in every data set, so whoever sets one
# cache folder for a project trains and tests on the wrong data, without an error.
# Besides, names beyond 100 bytes that are split in two (`tar --format=ustar`) lose their first part: of three samples in
# three folders one is left, without a word, where webdataset 1.0.2 gives three.
#
# What to do: one `cache_dir` for each version of each data set; keep names of members within 100 bytes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# wids reads no tensors, but imports torch.distributed. The default index serves the CUDA build of torch on Linux, several
# gigabytes; PIP_INDEX_URL may name one with CPU builds.
"$work/venv/bin/pip" install -q --disable-pip-version-check wids==0.1.11 webdataset==1.0.2 torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'P'
import io
import json
import os
import sys
import tarfile

import webdataset
import wids

work = sys.argv[1]


def write(name, members):
    """A data set of one shard: its index for wids."""
    os.makedirs(f"{work}/{name}", exist_ok=True)
    with tarfile.open(f"{work}/{name}/000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, text in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    shards = [{"url": "000.tar", "nsamples": len(members)}]
    with open(f"{work}/{name}/index.json", "w") as file:
        json.dump({"wids_version": 1, "shardlist": shards}, file)
    return f"{work}/{name}/index.json"


def first(index, **options):
    return wids.ShardListDataset(index, transformations=[dict], **options)[0][".txt"].read().decode()


birds, dogs = (write(name, [("0.txt", name)]) for name in ("birds", "dogs"))
shared = [first(index, cache_dir=f"{work}/cache") for index in (birds, dogs)]
print("one cache_dir, birds and dogs give:", *shared)
before = first(birds)
write("birds", [("0.txt", "new birds")])
after = first(birds)
print("a shard before and after it was written anew:", before, "|", after)

long = [("/".join((letter * 60, "x" * 50 + ".txt")), letter) for letter in "pqr"]
write("long", long)
path = f"{work}/long/000.tar"
by_webdataset = len(list(webdataset.WebDataset(path, shardshuffle=False)))
by_wids = len(wids.wids.IndexedTarSamples(path=path))
print("three samples, names split by ustar: webdataset", by_webdataset, "wids", by_wids)
sys.exit(0 if (shared, before, after, by_webdataset, by_wids) == (["birds", "birds"], "birds", "birds", 3, 1) else 1)
P
