"""Page elements that work with keyboards and screen readers: sliders, tabs, buttons, texts, downloads."""
