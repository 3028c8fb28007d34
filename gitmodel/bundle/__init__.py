"""What a bundle is made of, as values: card, signatures, lock, golden cases, and the folder they are read from."""
