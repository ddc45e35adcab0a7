"""The benchmark behind `scripts/bench`.

It is run as `python -m benchlib` with this folder's parent on the path. Its parts:

    contenders   who takes part: ours, the peers that are installed, the limits, the user's own
    processes    starting and watching them, what each costs, leaving none behind
    pipeline     one run of one contender, and whether all bytes came out
    sealed       ours with a key, and the peers that encrypt, with keys and certificates made for it
    rounds       many runs, interleaved, kept apart by what was run
    report       medians, ratios, tables, the list of targets, JSON
    __main__     the command line

Each imports those above it only.
"""

THREADS_DEFAULT = 8  # legs where one number has to do
