"""What an operator types; each verb is one call of sinkcore.operate."""
