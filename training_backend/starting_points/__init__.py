"""Settings to begin with: presets, recipes, advice, the demo."""
