"""How models write calls of tools and their reasoning: what of it is in a template, as a grammar, and in a text. Pure.

An agent, which has the template, decides on the format of a request's text and says so in the journal; a balancer reads
the text by it. So the text in the journal is what the model wrote, and whoever goes on with it reads the same.
"""
