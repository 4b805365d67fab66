"""Commands on a machine that outlive their connection: lanes, in shell, and who speaks to them."""
