"""Where does demand meet supply?  The one package that divides a ledger's demand by a machine's rates."""
