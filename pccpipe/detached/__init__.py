"""Commands on a machine that outlive their connection: lanes, in shell, and the code that talks to them."""
