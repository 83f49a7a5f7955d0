"""SUPPLY MEETS DEMAND: the one package that divides a ledger's demand by a machine's rates."""
