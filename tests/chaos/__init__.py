"""`make chaos`: everything is killed and frozen while records flow, and KQL proves that each is there once."""
