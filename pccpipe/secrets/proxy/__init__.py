"""The proxy of `via: proxy` and `egress:`: keys stay in this process, and containers need no network.

`proxy` knows who holds which token, `grant` what a token is good for and what was used of it, `exchange` speaks HTTP
with whoever connects, `upstream` with the model's API, `egress` with the domains that a container may reach. `relay.js`
and `relay.py` are what brings a container's programs from a port to the proxy's socket.
"""
