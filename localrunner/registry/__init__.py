"""A schema registry for one machine: Confluent's REST protocol, as much of it as producers and the sink need.

It checks that a schema can be parsed and nothing about compatibility, and it forgets nothing.
"""
