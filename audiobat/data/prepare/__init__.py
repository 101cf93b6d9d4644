"""Any source of clips to shards: decoded, resampled and packed once, restartable, divisible over machines.

shard_plan.py   a clip table and settings to the shards that will be written
shard.py        one shard on the disk: tar files and their index
pack.py         the work of one shard: clips to members
pool.py         shards to worker processes, and which clip is to blame when one dies
merge.py        the indexes of finished shards to one clip table
statistics.py   `audiobat prepare --stats`: clips to the mean and deviation of their log-mel
run.py          `audiobat prepare`
"""
