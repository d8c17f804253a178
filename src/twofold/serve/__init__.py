"""Serving: one loaded model behind the APIs that people's tools already speak, and a page."""
