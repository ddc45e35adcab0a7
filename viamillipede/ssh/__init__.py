"""Both ends with one command: `viamillipede to DEST -- COMMAND` and `viamillipede from DEST -- COMMAND`.

The near end runs ssh, which runs the far end, `viamillipede far-end`, on the other host. One line of JSON goes there
on ssh's standard input: what is to be done, and a fresh key. One comes back on its standard output: the port. Then the
near end dials, as tx or rx with that key, and ssh is only the control channel: it carries the standard error of the
far end and of its command, and at the end a line that says how it ended. As long as its standard input is open the
far end goes on; when that ends first, however it came about, the far end ends itself and its command.
"""
