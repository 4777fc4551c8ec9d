"""Detection on real webs: fabric rolls of the AITEX set, by a protocol that recordings cannot fool."""
