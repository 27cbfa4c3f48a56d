"""Which settings of a training the forms show in one order, and which a resumed run leaves free."""

#: Advanced ones of every training, in the middle and at the end of the form.
STEPS = ("warmup", "weight_decay", "clip", "precision", "seed", "workers", "validation")
REST = ("checkpoint_minutes", "normalization", "augmentation")
#: Of the settings of a resumed run, those that may differ from its record.
FREE = ("device", "precision", "workers", "checkpoint_minutes")
