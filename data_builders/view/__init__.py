"""The page of `lalm data view`: listen to records, look at them, accept or reject them."""
