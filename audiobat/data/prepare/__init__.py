"""Any source of clips to shards: decoded, resampled and packed once, restartable, divisible over machines.

shard_index.py  what one shard holds, as its .index.npz says
shard_plan.py   a clip table and settings to the shards that will be written
shard_writer.py  members to the tar files of one shard
pack.py         the work of one shard
pool.py         shards to processes; what happens when one dies
merge.py        the indexes of finished shards to one table
statistics.py   clips to the mean and deviation of their log-mel
statistics_run.py  `audiobat prepare --stats`
run.py          `audiobat prepare`
"""
