"""Drawings and charts: cells, lines and dots, as SVG or by matplotlib."""
