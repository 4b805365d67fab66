"""The proxy of `via: proxy` and `egress:`: keys stay in this process, and containers need no network.

`proxy` knows the holder of each token, and `grant` its rights and use. `exchange` speaks HTTP with the client,
`upstream` with the model's API, and `egress` with the domains that a container may reach. `relay.js` and `relay.py`
connect a container's programs from a port to the proxy's socket.
"""
