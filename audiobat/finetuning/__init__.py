"""Fine-tuning (Table 6): a model and labelled clips to a run folder with a release that tags.

layer_rates.py  a learning rate for every block, as AdamW's parameter groups
prior.py        the labels' prior as the start of a head
crops.py        what training draws its crops from
step.py         one step: a batch of crops to the loss; which weights are kept
testing.py      a tagger's outputs for whole clips, its validation score, its result record
training.py     from the newest checkpoint to the end
needs.py        the memory that it takes, at the least
run.py          `audiobat finetune`
"""
