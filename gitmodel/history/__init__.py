"""What the whole Git history names of stored bytes, so that none of it is ever taken for rubbish."""
