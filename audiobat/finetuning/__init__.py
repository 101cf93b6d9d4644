"""Fine-tuning (Table 6): a model and labelled clips to a run folder with a release that tags.

labels.py       labels as targets of a batch
layer_rates.py  a learning rate for every block
step.py         one step
plan.py         what a fine-tuning will do
testing.py      the tuned model's scores, metrics and record
training.py     from the newest checkpoint to the end
run.py          `audiobat finetune`
"""
