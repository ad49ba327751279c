"""How messages travel: unix sockets on one machine, ZeroMQ over TCP with CURVE between machines.

`framing` is pure; `unix` and `tcp` are the server's sides; `channel` and `async_channel` those of a client; `address`
says which of them a `controller_info` means.
"""
