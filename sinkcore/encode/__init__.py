"""Records and a route become bytes and refused records; nothing here does I/O."""
