"""How the demo's adapters were made: `python -m aril.demo.train` trains them again."""
