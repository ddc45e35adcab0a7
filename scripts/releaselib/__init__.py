"""What scripts/release is made of: sources -> wheel -> library -> zipapp and Debian package -> checks.

Everything is a function of the checkout, of SOURCE_DATE_EPOCH (by default: when the last commit was made) and of the
versions in constraints.txt: built again, it is the same to the byte.
"""
