"""The workflow templates, subgraph blueprints and pictures of the pack, described in Python.

``python -m tests.workflows.write`` writes ``example_workflows/`` and ``subgraphs/``;
``python -m tests.workflows.thumbnails`` draws the pictures of the templates, and
``python -m tests.workflows.mark`` the icon and the banner.
"""
