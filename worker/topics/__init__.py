"""The contract's topics: what they have to be like, and an admin that makes them so."""
