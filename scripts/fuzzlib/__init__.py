"""Coverage-guided fuzzing of everything that hears bytes from a peer, or reads a file: scripts/fuzz.

A *target* is a function of bytes that plays them against the real code and checks what must hold whatever they are.
It reads them as a *script*: which leg says what, in which pieces, what else happens in between. Hashes are made right
on the way, or no input would get behind them. Targets need nothing but the project; the engine adds coverage to them.
"""
