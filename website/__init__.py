"""The documentation's site: `mkdocs.yml` and `docs/`, and here what is made of the code when it is built."""
