"""GILL: a frozen language model that sees images, fetches them and draws new ones.

Importing this package is cheap and needs nothing installed: `gill.flatland` runs with numpy and Pillow alone. Rooms
that need torch import it themselves; docs/DESIGN.md has the map.
"""
