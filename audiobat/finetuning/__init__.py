"""Fine-tuning (Table 6): a model and labelled clips to a run folder with a release that tags.

layer_rates.py    a learning rate for every block, as AdamW's parameter groups
prior.py          the labels' prior as the start of a head
crops.py          what training draws its crops from
step.py           one step: a batch of crops to the loss; which weights are kept
testing.py        a tagger's outputs for whole clips, its validation score, its result record
training.py       from the newest checkpoint to the end
needs.py          the memory that it takes, at the least
review_list.py    which windows were cut out as clips for a person to hear
window_labels.py  annotations and marks to labels for stored embeddings
logistic.py       logistic regression
from_features.py  `audiobat finetune --features`: a head on stored embeddings
run.py            `audiobat finetune`
"""
